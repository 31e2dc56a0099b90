"""Time of a training step against other trainers' steps: full-size SD 1.5, small pictures, on the CPU.

All steps run in turn in one process on equal batches, so that a slow moment of the machine affects them all.
The weights are random, which takes the same time as trained ones.
"""

import gc
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

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
from training.experts import adapter
from training.models import FAMILIES
from training.trainer.progress import ADAM_BETAS, Progress
from training.trainer.run import Run
from training.trainer.step import take_step

PIXELS = 256  # at 512 a step takes a minute; at 128 reading the weights takes longer than using them
REPEATS = 3
BANKED = "ours, bank filled"  # the warm-up turn fills it: one pair with one draw


def measure() -> dict:
    """Measure the median seconds of each step and the ratio of ours to it, without and with a full bank."""
    size = resized(SD15, PIXELS)
    seconds = interleaved(_steps(size), REPEATS)
    gc.collect()
    return {
        f"{name}, against {variant}": compare(seconds[name], seconds[variant])
        for variant in ("ours", BANKED)
        for name in ("published", "diffusers")
    }


def _steps(size: Size) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    schedule = FAMILIES[size.family].schedule()
    unet = make_real_unet(size)
    reference = sharing_weights(unet, size)
    vae, text = make_vae(), make_text_encoders(size)
    adapter.attach_adapter(unet, rank=RANK, alpha=0, targets="attention", seed=0)
    run = Run.of(unet, make_data(size, 1), schedule, paper_config())
    banked = Run.of(unet, make_data(size, 1), schedule, replace(paper_config(), bank=1))
    progress, banked_progress = Progress(run), Progress(banked)
    published = PublishedStep(unet, reference, vae, text, schedule, size)
    adapter_off = AdapterOffStep(unet, unet, vae, text, schedule, size)
    pictures = torch.rand(2, 3, size.pixels, size.pixels) * 2 - 1
    tokens = torch.randint(49000, (1, TOKENS))
    return {
        "published": _with_update(published, unet, pictures, tokens),
        "diffusers": _with_update(adapter_off, unet, pictures, tokens),
        "ours": lambda: take_step(run, progress),
        BANKED: lambda: take_step(banked, banked_progress),
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
