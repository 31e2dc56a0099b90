"""Reproduce the shipped weights: `python -m training.mini.recipe --out DIR`, over an hour on two cores."""

import argparse
import random
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from ..architecture import AUTOENCODER_WIDTH, build_autoencoder, load_unet
from ..judge import Judge, share_shown
from ..scenes import ALL_SCENES
from ..shipped import load_judge
from ..text_encoder import embed
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
    autoencoder = _autoencoder(out / "autoencoder.safetensors")
    captions = _captions(out / "captions.safetensors")
    unet = _unet(out / "unet.safetensors", autoencoder, captions)
    judge = _judge(out / "judge.safetensors", autoencoder)
    _experts(out / "experts.safetensors", unet, autoencoder, judge, captions)


def _autoencoder(path: Path):
    if not path.exists():
        rng = random.Random(SEED)
        with ProgressBar("autoencoder") as report:
            trained = train_autoencoder(lambda: scene_batch(rng, BATCH), SEED, report)
        save_file(fp16(trained.state_dict()), path)
    model = build_autoencoder(AUTOENCODER_WIDTH)
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    return model.requires_grad_(False)


def _captions(path: Path) -> dict[str, torch.Tensor]:
    if not path.exists():
        prompts = [scene.prompt(**wording) for scene in ALL_SCENES for wording in WORDINGS]
        with ProgressBar("captions") as report:
            embeds = embed(["", *prompts], on_progress=report).half()
        scenes = embeds[1:].unflatten(0, (len(ALL_SCENES), len(WORDINGS))).contiguous()
        save_file({"empty": embeds[:1].contiguous(), "scenes": scenes}, path)
    return load_file(path)


def _unet(path: Path, autoencoder, captions: dict[str, torch.Tensor]):
    if not path.exists():
        data = Captioned(encode_scenes(autoencoder, SEED), captions["scenes"], captions["empty"])
        denoiser = Denoiser(SEED)
        with ProgressBar("unet") as report:
            while denoiser.steps < STEPS:
                loss = denoiser.step(data)
                report(denoiser.steps, STEPS, loss)
        save_file(fp16(denoiser.average.state_dict()), path)
    return load_unet({name: tensor.float() for name, tensor in load_file(path).items()})


def _judge(path: Path, autoencoder) -> Judge:
    if not path.exists():
        with ProgressBar("judge") as report:
            with torch.random.fork_rng():
                torch.manual_seed(SEED)
                judge = Judge()
            generator = torch.Generator().manual_seed(SEED)
            train_judge(judge, scene_bank(autoencoder, SEED, generator), generator, report)
        save_file(fp16(judge.state_dict()), path)
    judge = load_judge(path)
    rng = random.Random(SEED + 1)
    scenes = [rng.choice(ALL_SCENES) for _ in range(2000)]
    verdicts = judge.look(scene_batch_of(scenes, rng))
    tqdm.write(f"judge right on {len(scenes)} fresh drawings: {share_shown(verdicts, scenes):.4f}")
    return judge


def _experts(path: Path, unet, autoencoder, judge: Judge, captions: dict[str, torch.Tensor]) -> None:
    if path.exists():
        return
    embeds = {"": captions["empty"][0].float()}
    for scene, wordings in zip(ALL_SCENES, captions["scenes"].float(), strict=True):
        embeds |= {scene.prompt(**w): text for w, text in zip(WORDINGS, wordings, strict=True)}
    with ProgressBar("experts") as report:
        tensors, metadata = train_experts(unet, autoencoder, judge, embeds, report)
    save_file(fp16(tensors), path, metadata)


def fp16(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.half().contiguous() for name, tensor in state.items()}


class ProgressBar:
    """A progress bar with a running mean of the loss."""

    def __init__(self, name: str):
        self.bar, self.mean = tqdm(desc=name, mininterval=5), None

    def __enter__(self):
        return self.report

    def __exit__(self, *_):
        self.bar.close()

    def report(self, step: int, total: int, loss: float | None = None) -> None:
        """Move the bar to `step` of `total`."""
        self.bar.total = total
        if loss is not None:
            self.mean = loss if self.mean is None else 0.98 * self.mean + 0.02 * loss
            self.bar.set_postfix(loss=f"{self.mean:.4f}", refresh=False)
        self.bar.update(step - self.bar.n)


if __name__ == "__main__":
    main()
