"""Reproduce the shipped weights: `python -m training.mini.recipe --out DIR`, over an hour on two cores."""

import argparse
import random
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from ..judge import Judge, share_shown
from ..scenes import ALL_SCENES
from ..shipped import SMALL
from ..text_encoder import embed
from . import ProgressBar, save_weights, seeded
from .autoencoder import BATCH, scene_batch, scene_batch_of, train_autoencoder
from .denoiser import STEPS, Captioned, Denoiser, encode_scenes
from .experts import train_experts
from .judge import scene_bank, train_judge

WORDINGS = [{"synonym": s, "template": t} for s in (False, True) for t in (0, 1)]
SEED = 0


def main() -> None:
    """Train the parts that --out does not hold yet: autoencoder, captions, UNet, judge, experts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the weights; finished parts are kept"
    )
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    weights = replace(SMALL, folder=out)
    _train_autoencoder(out / "autoencoder.safetensors")
    captions, autoencoder = _captions(out / "captions.safetensors"), weights.load_autoencoder()
    _train_unet(out / "unet.safetensors", autoencoder, captions)
    _train_judge(out / "judge.safetensors", autoencoder)
    judge = weights.load_judge()
    _measure(judge)
    _train_experts(out / "experts.safetensors", weights.load_unet(), autoencoder, judge, captions)


def _train_autoencoder(path: Path) -> None:
    if path.exists():
        return
    rng = random.Random(SEED)
    with ProgressBar("autoencoder") as report:
        trained = train_autoencoder(lambda: scene_batch(rng, BATCH), SEED, report)
    save_weights(path, trained.state_dict())


def _captions(path: Path) -> dict[str, torch.Tensor]:
    if not path.exists():
        prompts = [scene.prompt(**wording) for scene in ALL_SCENES for wording in WORDINGS]
        with ProgressBar("captions") as report:
            embeds = embed(["", *prompts], on_progress=report).half()
        scenes = embeds[1:].unflatten(0, (len(ALL_SCENES), len(WORDINGS))).contiguous()
        save_file({"empty": embeds[:1].contiguous(), "scenes": scenes}, path)
    return load_file(path)


def _train_unet(path: Path, autoencoder, captions: dict[str, torch.Tensor]) -> None:
    if path.exists():
        return
    data = Captioned(encode_scenes(autoencoder, SEED), captions["scenes"], captions["empty"])
    denoiser = Denoiser(SEED)
    with ProgressBar("unet") as report:
        while denoiser.steps < STEPS:
            loss = denoiser.step(data)
            report(denoiser.steps, STEPS, loss)
    save_weights(path, denoiser.average.state_dict())


def _train_judge(path: Path, autoencoder) -> None:
    if path.exists():
        return
    judge, generator = seeded(Judge, SEED), torch.Generator().manual_seed(SEED)
    with ProgressBar("judge") as report:
        train_judge(judge, scene_bank(autoencoder, SEED, generator), generator, report)
    save_weights(path, judge.state_dict())


def _measure(judge: Judge) -> None:
    rng = random.Random(SEED + 1)
    scenes = [rng.choice(ALL_SCENES) for _ in range(2000)]
    verdicts = judge.look(scene_batch_of(scenes, rng))
    tqdm.write(f"judge right on {len(scenes)} fresh drawings: {share_shown(verdicts, scenes):.4f}")


def _train_experts(path: Path, unet, autoencoder, judge: Judge, captions: dict[str, torch.Tensor]) -> None:
    if path.exists():
        return
    embeds = {"": captions["empty"][0].float()}
    for scene, wordings in zip(ALL_SCENES, captions["scenes"].float(), strict=True):
        embeds |= {scene.prompt(**w): text for w, text in zip(WORDINGS, wordings, strict=True)}
    with ProgressBar("experts") as report:
        tensors, metadata = train_experts(unet, autoencoder, judge, embeds, report)
    save_weights(path, tensors, metadata)


if __name__ == "__main__":
    main()
