"""Bytes of a training step and of a merge, counted exactly without a GPU.

The training step has one pair under one prompt, in bf16, on tensors without memory. Norms run in fp32, as
they do under autocast on a GPU but not on a CPU, so the bytes are those of a GPU. Workspaces of kernels,
rounding by the allocator and the memory of the driver (0.5 to 1 GB) come on top.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from full_size import RANK, SIZES, Size, fake_mode, fake_run, gradients, make_unet, paper_config
from peers import fake_published
from tensor_bytes import GIB, LiveBytes, saved_for_backward
from training.config import MergeConfig
from training.experts.adapter import ATTENTION
from training.experts.expert import SafetyExpert
from training.experts.low_rank import LowRank
from training.merging import merge_experts
from training.models.network import MODES, set_checkpointing

EXPERTS = 7
# Tensors beside the adapter's weight and gradient: two moments, and the last good copy of moments and weight.
STATES = 5
PUBLISHED_STATES = 2  # the two moments; it keeps no copy of the last good state
MERGES = {"svd": RANK, "concat": 0}  # method -> output rank


def measure() -> dict:
    """Measure training in every mode of gradient checkpointing (GiB) and merging seven experts (MiB)."""
    rows = {}
    for name, size in SIZES.items():
        for mode in MODES:
            rows[f"train {name}, checkpointing {mode}"] = training_bytes(size, mode)
        rows[f"train {name}, published trainer"] = published_bytes(size)
    for name, size in SIZES.items():
        for method, rank in MERGES.items():
            rows[f"merge {name}, {method}"] = merge_bytes(size, method, rank)
    return rows


def training_bytes(size: Size, checkpointing: str) -> dict[str, float]:
    """Count the weights, what autograd keeps for the backward pass, and the peak of a step, in GiB."""
    mode = fake_mode()
    run = fake_run(size, paper_config(precision="bf16"), mode, dtype=torch.bfloat16)
    set_checkpointing(run.unet, checkpointing)
    weights = [*run.unet.parameters(), *run.unet.buffers()]
    states = STATES * sum(parameter.nbytes for parameter in run.parameters.values())
    return _counted(mode, weights, states, functools.partial(gradients, run))


def published_bytes(size: Size) -> dict[str, float]:
    """Count the published trainer's step in the same way: frozen weights in bf16, VAE without its decoder."""
    mode = fake_mode()
    published, batch = fake_published(size, mode, dtype=torch.bfloat16)
    modules = (published.unet, published.reference, published.vae, *published.text_encoders)
    weights = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    states = PUBLISHED_STATES * sum(weight.nbytes for weight in weights if weight.requires_grad)

    def gradients_of_pair() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            published(*batch)

    return _counted(mode, weights, states, gradients_of_pair)


def _counted(
    mode: FakeTensorMode, weights: Sequence[Tensor], states: int, compute: Callable[[], None]
) -> dict[str, float]:
    """Count the bytes of a step; `states` adds the bytes of the optimizer's states to the peak."""
    with mode, norms_in_fp32(), LiveBytes(weights) as live, saved_for_backward(weights) as saved:
        resident = live.now
        compute()
    return {
        "weights GiB": resident / GIB,
        "kept for backward GiB": sum(saved) / GIB,
        "peak GiB": (live.peak + states) / GIB,
    }


@contextmanager
def norms_in_fp32() -> Iterator[None]:
    """Make CPU autocast run norms in fp32, as on a GPU; it treats a UNet's other operations the same way."""

    def wrapped(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def raised(value: Any) -> Any:
            return value.float() if isinstance(value, Tensor) else value

        @functools.wraps(norm)
        def in_fp32(*args: Any, **kwargs: Any) -> Tensor:
            if torch.is_autocast_enabled("cpu"):
                args, kwargs = map(raised, args), {name: raised(value) for name, value in kwargs.items()}
            return norm(*args, **kwargs)

        return in_fp32

    with (
        mock.patch.object(F, "group_norm", wrapped(F.group_norm)),
        mock.patch.object(F, "layer_norm", wrapped(F.layer_norm)),
    ):
        yield


def merge_bytes(size: Size, method: str, output_rank: int) -> dict[str, float]:
    """Count the memory of a merge in MiB: the experts, the result, and the rest at the peak."""
    shapes = _attention_shapes(size)
    experts = [_random_expert(size, shapes, seed) for seed in range(EXPERTS)]
    layers = [layer for expert in experts for layer in expert.layers.values()]
    with LiveBytes(tensor for layer in layers for tensor in (layer.up, layer.down)) as live:
        inputs = live.now
        merged = merge_experts(experts, MergeConfig(method=method, output_rank=output_rank))
    result = sum(layer.up.nbytes + layer.down.nbytes for layer in merged.layers.values())
    mib = 2**20
    return {
        "experts MiB": inputs / mib,
        "merged MiB": result / mib,
        "more at the peak MiB": (live.peak - inputs - result) / mib,
        "largest layer MiB": 4 * max(d_out * d_in for d_out, d_in in shapes.values()) / mib,
        "all layers MiB": 4 * sum(d_out * d_in for d_out, d_in in shapes.values()) / mib,
    }


def _attention_shapes(size: Size) -> dict[str, tuple[int, int]]:
    with torch.device("meta"):
        unet = make_unet(size)
    endings = tuple(f".{name}" for name in ATTENTION)
    return {name: tuple(layer.weight.shape) for name, layer in unet.named_modules() if name.endswith(endings)}


def _random_expert(size: Size, shapes: dict[str, tuple[int, int]], seed: int) -> SafetyExpert:
    generator = torch.Generator().manual_seed(seed)
    layers = {
        name: LowRank(
            torch.randn(d_out, RANK, generator=generator), torch.randn(RANK, d_in, generator=generator)
        )
        for name, (d_out, d_in) in shapes.items()
    }
    return SafetyExpert(layers, ("hate",), size.family, {}, f"expert {seed}")
