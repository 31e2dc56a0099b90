"""Everyday prompts that come with the pack: what must not change, where nobody wrote neutral prompts.

They are spread over subjects and styles, because an expert changes most what is near its pairs, and nobody
knows what an artist will ask for. Some are never trained on and never calibrated with, so that the change of
everything else can be measured.

Training puts them on the pictures of the pairs. Merging compares experts on what the base model draws from
them itself, as latents, so no VAE is needed.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..models.conditioning import Conditioning
from ..models.ddim import draw_latents
from ..models.noise import NoiseSchedule, named_generator

FILE = Path(__file__).with_name("everyday_prompts.txt")
HELD_OUT = 40  # the last of the file are measured, the others are kept
STEPS, GUIDANCE = 10, 3.0  # few steps, because only noised versions of the pictures are seen


@cache
def everyday_prompts() -> tuple[str, ...]:
    """Return all of them; their order in the file is random, so a first part is spread as widely as all."""
    return tuple(FILE.read_text(encoding="utf-8").splitlines())


class Everyday(NamedTuple):
    """Everyday prompts of a run.

    Attributes:
        kept: those that training keeps.
        measured: those on which its change is measured; never among the kept ones.
    """

    kept: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()


def everyday(num_kept: int, num_measured: int) -> Everyday:
    """Return the first `num_kept` of those that training may keep, and as many of the others."""
    prompts = everyday_prompts()
    return Everyday(prompts[:-HELD_OUT][:num_kept], prompts[-HELD_OUT:][:num_measured])


def draw_everyday(
    unet: nn.Module,
    schedule: NoiseSchedule,
    prompts: Conditioning,
    latent_shape: Sequence[int],
    *,
    seeds: Sequence[str],
    empty: Conditioning,
    batch_size: int,
) -> Iterator[Tensor]:
    """Draw one picture per prompt, batch by batch.

    Args:
        unet: UNet of diffusers, without an adapter.
        schedule: of its family.
        prompts: one row per picture.
        latent_shape: (c, h, w).
        seeds: one per picture; each names the noise of its picture, so the batches do not matter.
        empty: the empty prompt, one row.
        batch_size: pictures at once; the UNet gets twice as many rows.

    Yields:
        Latents of a batch, (rows, c, h, w) fp32 on the CPU.
    """
    for start in range(0, len(seeds), batch_size):
        generators = map(named_generator, seeds[start : start + batch_size])
        noise = torch.stack([torch.randn(*latent_shape, generator=generator) for generator in generators])
        rows = prompts[start : start + batch_size]
        yield draw_latents(unet, schedule, rows, noise, empty=empty, steps=STEPS, guidance=GUIDANCE).cpu()
