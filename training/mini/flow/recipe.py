"""Reproduce the mini flow's weights: `python -m training.mini.flow.recipe --out DIR`.

Finished parts are kept, and a killed training goes on from its last saved state. Of DIR, the file
transformer.safetensors belongs into `weights`. The latents are those of the small world's autoencoder.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from ...models.conditioning import Conditioning
from ...models.tokenizer import NUM_TOKENS
from ..judge import share_shown
from ..recipe import ProgressBar, save_weights
from ..recipe.__main__ import WORDINGS
from ..recipe.denoiser import CAPTION_DROPOUT, Denoiser, encode_scenes
from ..recipe.denoiser_state import load_denoiser, save_denoiser
from ..scenes import ALL_SCENES
from ..shipped import SMALL
from . import REPEATS, build_transformer, load_transformer, stored_state
from .drawing import encode, make_draw, predict, shifted

SEED = 0
BATCH = 32
VARIANTS = 16  # drawings of each scene
STEPS = 4_000
WARMUP, DECAY = 200, 1_500  # steps of rising and, at the end, of falling learning rate
SHORT_STEPS, SHORT = 3_000, 12  # first steps, which see so many tokens of 77; the others are padding
SAVE_EVERY = 250


class FlowDenoiser(Denoiser):
    """The mini transformer in training."""

    new_network = staticmethod(build_transformer)

    def loss(self, data: tuple[Tensor, Conditioning]) -> Tensor:
        """Return the error of the velocity at noise levels drawn as SD 3 draws them, shifted.

        Rectified flow with a logit-normal density (arXiv:2403.03206, sections 2 and 3.1).

        Args:
            data: latents (scenes, variants, 4, 8, 8), and the captions: the empty one, then as many for each
                scene.
        """
        latents, captions = data
        rows, numbers = draw_batch(latents, len(captions), self.generator)
        rows = rows.repeat_interleave(REPEATS, dim=1)
        sigmas = shifted(torch.randn(len(rows), generator=self.generator).sigmoid())
        noise = torch.randn(rows.shape, generator=self.generator)
        noisy = torch.lerp(rows, noise, sigmas[:, None, None, None])
        prompts = captions[numbers].to(torch.float32)
        return (predict(self.unet, noisy, sigmas, prompts) - (noise - rows)).square().mean()


def draw_batch(latents: Tensor, num_captions: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pick drawings, (BATCH, 4, 8, 8), and the number of each one's caption, (BATCH,); 0 is the empty one."""
    scenes = torch.randint(len(latents), (BATCH,), generator=generator)
    variants = torch.randint(latents.shape[1], (BATCH,), generator=generator)
    wordings = (num_captions - 1) // len(latents)
    numbers = 1 + scenes * wordings + torch.randint(wordings, (BATCH,), generator=generator)
    dropped = torch.rand(BATCH, generator=generator) < CAPTION_DROPOUT
    return latents[scenes, variants], numbers.masked_fill(dropped, 0)


def learning_rates(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """Return a learning rate that rises over WARMUP steps, stays, and falls to 0 over the last DECAY."""

    def share(step: int) -> float:
        return min(1.0, (step + 1) / WARMUP, max(0.0, (STEPS - step) / DECAY))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


def main() -> None:
    """Train the transformer, unless --out holds it, and measure it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    every = [scene.prompt(**wording) for scene in ALL_SCENES for wording in WORDINGS]
    one = [scene.prompt(**WORDINGS[number % len(WORDINGS)]) for number, scene in enumerate(ALL_SCENES)]
    whole = _captions(out / "captions.safetensors", one, NUM_TOKENS)
    _train(out, _captions(out / "short_captions.safetensors", every, SHORT), whole)
    _measure(load_transformer(load_file(out / "transformer.safetensors")), whole)


def _captions(path: Path, prompts: list[str], num_tokens: int) -> Conditioning:
    """Return the empty prompt and these, encoded."""
    if not path.exists():
        with ProgressBar(path.stem) as report:
            encoded = encode(["", *prompts], report, num_tokens).to(torch.float16)
        save_file({"embeds": encoded.text_embeds, "pooled": encoded.pooled}, path)
    tensors = load_file(path)
    return Conditioning(tensors["embeds"], tensors["pooled"])


def _train(out: Path, short: Conditioning, whole: Conditioning) -> None:
    path, state = out / "transformer.safetensors", out / "denoiser_state.safetensors"
    if path.exists():
        return
    latents = encode_scenes(SMALL.load_autoencoder(), SEED, VARIANTS)
    denoiser = FlowDenoiser(SEED, learning_rates)
    if state.exists():
        load_denoiser(denoiser, state)
    with ProgressBar("transformer") as report:
        while denoiser.steps < STEPS:
            captions = short if denoiser.steps < SHORT_STEPS else whole
            report(denoiser.steps + 1, STEPS, denoiser.step((latents, captions)))
            if denoiser.steps % SAVE_EVERY == 0:
                save_denoiser(denoiser, state)
    save_weights(path, stored_state(denoiser.average))


def _measure(transformer, whole: Conditioning) -> None:
    """Draw every scene once and print the share in which the judge sees it."""
    rows = {str(number): whole[[number]].to(torch.float32) for number in range(len(whole))}
    draw = make_draw(transformer, SMALL.load_autoencoder(), rows | {"": rows["0"]})
    names = list(rows)[1:]
    verdicts = SMALL.load_judge().look(draw(names, range(len(names))))
    tqdm.write(f"drawn as asked: {share_shown(verdicts, ALL_SCENES):.4f} of {len(names)}")


if __name__ == "__main__":
    main()
