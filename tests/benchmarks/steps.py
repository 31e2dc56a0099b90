"""Time of a training step against other trainers' steps: full-size SD 1.5, small pictures, on the CPU.

All of them run in one process on equal batches in turn, so that a slow moment of the machine meets each.
The weights are random, which costs the same time as trained ones.
"""

import gc
from collections.abc import Callable

import torch
from full_size import (
    RANK,
    SD15,
    TOKENS,
    Size,
    make_data,
    make_real_unet,
    paper_config,
    resized,
    sharing_weights,
)
from peers import AdapterOffStep, PublishedStep, make_text_encoders, make_vae
from timing import compare, interleaved
from torch import nn

from training import adapter
from training.families import FAMILIES
from training.step import ADAM_BETAS, Run, take_step

PIXELS = 256  # at 512 a step takes a minute; at 128 reading the weights takes longer than using them
REPEATS = 3


def measure() -> dict:
    """Return the median seconds of each step, and its ratio to ours over the repeats."""
    size = resized(SD15, PIXELS)
    seconds = interleaved(_steps(size), REPEATS)
    gc.collect()
    return {name: compare(times, seconds["ours"]) for name, times in seconds.items()}


def _steps(size: Size) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    schedule = FAMILIES[size.family].schedule()
    unet = make_real_unet(size)
    reference = sharing_weights(unet, size)
    vae, text = make_vae(), make_text_encoders(size)
    adapter.attach_adapter(unet, rank=RANK, alpha=0, targets="attention", seed=0)
    run = Run(unet, make_data(size, 1), schedule, paper_config(), None)
    published = PublishedStep(unet, reference, vae, text, schedule, size)
    adapter_off = AdapterOffStep(unet, unet, vae, text, schedule, size)
    pictures = torch.rand(2, 3, size.pixels, size.pixels) * 2 - 1
    tokens = torch.randint(49000, (1, TOKENS))
    return {
        "published": _with_update(published, unet, pictures, tokens),
        "diffusers": _with_update(adapter_off, unet, pictures, tokens),
        "ours": lambda: take_step(run),
    }


def _with_update(step: PublishedStep, unet: nn.Module, *inputs: torch.Tensor) -> Callable[[], None]:
    parameters = list(adapter.adapter_parameters(unet).values())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=ADAM_BETAS)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        step(*inputs)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return run
