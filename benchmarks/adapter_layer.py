"""Compare peft's adapter with a plain LoRA layer: time and peak memory of a whole training step.

The library keeps peft unless the plain layer saves at least a tenth of one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from full_size import (
    RANK,
    SD15,
    SIZES,
    TOKENS,
    Size,
    fake_mode,
    make_real_unet,
    make_unet,
    resized,
    sharing_weights,
    without_memory,
)
from memory import norms_in_fp32
from plain_lora import attach_plain, plain_reference
from tensor_bytes import GIB, LiveBytes
from timing import compare, interleaved
from training.experts import adapter
from training.models import FAMILIES
from training.models.conditioning import Conditioning, predict
from training.models.network import set_checkpointing

PIXELS = 256
REPEATS = 3
Inputs = tuple[Tensor, Tensor, Conditioning]


@dataclass(frozen=True)
class Adapted:
    """A UNet with a LoRA, made by peft or by the plain layer."""

    unet: nn.Module
    parameters: list[nn.Parameter]
    off: Callable[[], AbstractContextManager]


def measure() -> dict:
    """Measure the peak of a step in GiB (bf16, as in `memory`) and its time in seconds (fp32, on the CPU)."""
    rows = {}
    for name, size in SIZES.items():
        for mode in ("none", "full"):
            peaks = {kind: _peak(kind, size, mode) for kind in ADAPTERS}
            row = {**peaks, "plain / peft": peaks["plain"] / peaks["peft"]}
            rows[f"peak GiB, {name}, checkpointing {mode}"] = row
    seconds = interleaved(_timed(resized(SD15, PIXELS)), REPEATS)
    times = {kind: compare(seconds[kind], seconds[kind])["seconds"] for kind in ADAPTERS}
    ratio = compare(seconds["peft"], seconds["plain"])["ratio"]
    rows[f"seconds, SD 1.5, {PIXELS}"] = {**times, "plain / peft": ratio}
    return rows


def with_peft(unet: nn.Module) -> Adapted:
    """Attach the library's adapter."""
    adapter.attach_adapter(unet, rank=RANK, alpha=0, targets="attention", seed=0)
    parameters = list(adapter.adapter_parameters(unet).values())
    return Adapted(unet, parameters, lambda: adapter.reference(unet))


def with_plain(unet: nn.Module) -> Adapted:
    """Attach the plain layer."""
    layers = attach_plain(unet, rank=RANK)
    parameters = [factor for layer in layers.values() for factor in (layer.down, layer.up)]
    return Adapted(unet, parameters, lambda: plain_reference(layers))


ADAPTERS = {"peft": with_peft, "plain": with_plain}


def gradients(adapted: Adapted, inputs: Inputs, autocast: bool) -> None:
    """Accumulate the gradients of a preference step for one pair: the reference first, then the policy."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        with torch.no_grad(), adapted.off():
            reference = predict(adapted.unet, *inputs).float()
        policy = predict(adapted.unet, *inputs).float()
    winner, loser = (policy.square() - reference.square()).mean((1, 2, 3))
    (-F.logsigmoid(-2500 * (winner - loser))).backward()


def _peak(kind: str, size: Size, checkpointing: str) -> float:
    with torch.device("meta"):
        unet = make_unet(size)
    adapted = ADAPTERS[kind](unet)
    set_checkpointing(unet, checkpointing)
    with fake_mode():
        without_memory(unet, torch.bfloat16)
        inputs = make_inputs(size, torch.bfloat16)
        weights = [*unet.parameters(), *unet.buffers()]
        with norms_in_fp32(), LiveBytes(weights) as live:
            gradients(adapted, inputs, autocast=True)
    return live.peak / GIB


def make_inputs(size: Size, dtype: torch.dtype) -> Inputs:
    """Return noisy latents, timesteps and conditioning of one pair."""
    family, side = FAMILIES[size.family], size.latent_side
    pooled = torch.zeros(2, family.pooled_width, dtype=dtype) if family.pooled_width else None
    conditioning = Conditioning(torch.ones(2, TOKENS, family.text_width, dtype=dtype), pooled)
    return torch.ones(2, 4, side, side, dtype=dtype), torch.full((2,), 500), conditioning


def _timed(size: Size) -> dict[str, Callable[[], None]]:
    base = make_real_unet(size)
    inputs = make_inputs(size, torch.float32)
    steps = {}
    for kind, attach in ADAPTERS.items():
        adapted = attach(sharing_weights(base, size))
        optimizer = torch.optim.AdamW(adapted.parameters, lr=1e-5)

        def step(adapted: Adapted = adapted, optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad(set_to_none=True)
            gradients(adapted, inputs, autocast=False)
            optimizer.step()

        steps[kind] = step
    return steps
