"""Draw with an expert on a UNet of diffusers, and restore the same weights afterwards."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from .expert import SafetyExpert, check_size
from .lora_keys import Coverage, coverage

log = logging.getLogger(__name__)


@contextmanager
def applied_expert(unet: nn.Module, expert: SafetyExpert, strength: float) -> Iterator[None]:
    """Add an expert's update to the weights within the context; afterwards they are restored bit for bit.

    Args:
        unet: without an adapter.
        expert: the expert; a warning names the layers that the UNet lacks.
        strength: factor of the update.

    Raises:
        ValueError: if no layer of the expert matches, or its update is absurdly large, see `check_size`.
    """
    check_size(expert.name, expert.layers)
    weights, covered = _weights(unet), layers_on(unet, expert)
    if not covered.matched:
        raise ValueError(f"{expert.name}: {covered.sentence()} Use the base model it was made for.")
    if covered.missing:
        log.warning("%s: %s", expert.name, covered.sentence())
    before = {name: weights[name] for name in covered.matched}
    try:
        for name, weight in before.items():
            delta = expert.layers[name].delta().to(weight.device).reshape(weight.shape)
            unet.get_submodule(name).weight.data = (weight.float() + strength * delta).to(weight.dtype)
        yield
    finally:
        for name, weight in before.items():
            unet.get_submodule(name).weight.data = weight


def layers_on(unet: nn.Module, expert: SafetyExpert) -> Coverage:
    """Return which layers of an expert a UNet of diffusers has in the same shape."""
    weights = _weights(unet)
    return coverage(
        expert.layers,
        [
            name
            for name, layer in expert.layers.items()
            if name in weights and weights[name].flatten(1).shape == (layer.d_out, layer.d_in)
        ],
    )


def _weights(unet: nn.Module) -> dict[str, Tensor]:
    return {
        name.removesuffix(".weight"): value.data for name, value in unet.named_parameters() if value.ndim > 1
    }
