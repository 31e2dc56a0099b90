"""A LoRA layer without peft, to measure whether peft's adapter is slower or larger than necessary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.experts.adapter import ATTENTION


class PlainLora(nn.Module):
    """A frozen Linear and its LoRA update; autocast rounds the fp32 factors where they are used.

    Args:
        base: the frozen layer.
        down: (rank, d_in), fp32.
        up: (d_out, rank), fp32.
    """

    def __init__(self, base: nn.Linear, down: Tensor, up: Tensor) -> None:
        super().__init__()
        self.base, self.down, self.up = base, nn.Parameter(down), nn.Parameter(up)
        self.on = True

    def forward(self, inputs: Tensor) -> Tensor:
        """Return base(inputs) + up(down(inputs))."""
        result = self.base(inputs)
        if not self.on:
            return result
        return result + F.linear(F.linear(inputs, self.down), self.up)


def attach_plain(unet: nn.Module, *, rank: int) -> dict[str, PlainLora]:
    """Put a plain LoRA on the layers that `attach_adapter` trains and return the layers by name."""
    endings = tuple(f".{name}" for name in ATTENTION)
    layers = {}
    for name, base in list(unet.named_modules()):
        if name.endswith(endings):
            device = base.weight.device
            down = torch.randn(rank, base.in_features, device=device) / rank  # peft's "gaussian"
            layers[name] = PlainLora(base, down, torch.zeros(base.out_features, rank, device=device))
            parent, _, child = name.rpartition(".")
            setattr(unet.get_submodule(parent), child, layers[name])
    return layers


@contextmanager
def plain_reference(layers: dict[str, PlainLora]) -> Iterator[None]:
    """Switch the LoRA off inside the context."""
    for layer in layers.values():
        layer.on = False
    yield
    for layer in layers.values():
        layer.on = True
