"""An expert on a UNet of diffusers to draw with, and the very same weights again afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from .expert import SafetyExpert
from .lora_keys import coverage

log = logging.getLogger(__name__)


@contextmanager
def applied_expert(unet: nn.Module, expert: SafetyExpert, strength: float) -> Iterator[None]:
    """Add an expert's update to the weights while the context lasts.

    The old weights are kept beside the new ones, so that they come back bit for bit.

    Args:
        unet: without an adapter.
        expert: what to apply; layers the UNet lacks are named in the log.
        strength: factor of the update.

    Raises:
        ValueError: if no layer of the expert matches.
    """
    weights = {
        name.removesuffix(".weight"): value.data for name, value in unet.named_parameters() if value.ndim > 1
    }
    fitting = [
        name
        for name, layer in expert.layers.items()
        if name in weights and weights[name].flatten(1).shape == (layer.d_out, layer.d_in)
    ]
    found = coverage(expert.layers, fitting)
    if not found.matched:
        raise ValueError(f"{expert.name}: {found.sentence()} Use the base model it was made for.")
    if found.missing:
        log.warning("%s: %s", expert.name, found.sentence())
    before = {name: weights[name] for name in found.matched}
    try:
        for name, weight in before.items():
            delta = expert.layers[name].delta().to(weight.device).reshape(weight.shape)
            unet.get_submodule(name).weight.data = (weight.float() + strength * delta).to(weight.dtype)
        yield
    finally:
        for name, weight in before.items():
            unet.get_submodule(name).weight.data = weight
