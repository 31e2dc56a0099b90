"""A network that is not a UNet of diffusers, as training, merging and evaluation see it.

A UNet of diffusers is used as it is. Every other network is wrapped in a subclass of `Network`, which says
how to run it, which of its layers a LoRA is trained on and which of its blocks can be recomputed. The
functions below ask either kind.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from .conditioning import Conditioning


MODES = ("none", "selective", "full")  # by time, fastest first; each needs less memory than the one before


class Network(nn.Module):
    """A frozen network with its own way to be run; its layers have the names that files give them.

    Args:
        module: the network; this one shares its children, so that no name gets a prefix.
        targets: option `targets` -> regular expression that the names of the layers to train match whole.
    """

    def __init__(self, module: nn.Module, targets: Mapping[str, str]) -> None:
        super().__init__()
        self._modules, self._parameters, self._buffers = module._modules, module._parameters, module._buffers
        self.targets = dict(targets)

    @property
    @abstractmethod
    def input_dtype(self) -> torch.dtype:
        """The type that inputs are computed in, whatever type the weights are stored in."""

    @property
    @abstractmethod
    def block_list(self) -> list[nn.Module]:
        """The blocks that hold nearly all activations, in the order in which they run."""

    @abstractmethod
    def predict(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the network's own target of prediction; arguments and result as `conditioning.predict`."""


def input_like(network: nn.Module) -> Tensor:
    """Return an empty tensor of the device and type that the inputs of a UNet or network should have."""
    if isinstance(network, Network):
        return torch.empty(0, device=next(network.parameters()).device, dtype=network.input_dtype)
    weight = next(network.parameters())  # of a UNet's first layer, which is never adapted
    return torch.empty(0, device=weight.device, dtype=weight.dtype)


def set_checkpointing(unet: nn.Module, mode: str) -> None:
    """Choose which blocks of a UNet of diffusers or a `Network` are recomputed in the backward pass.

    The result of training is the same for every mode; only memory and time differ.

    Args:
        unet: changed in place.
        mode: `none`; `selective`: the levels of highest resolution, down to the first that has attention,
            on both sides (SD 1.5: one level, SDXL: two), which hold most bytes, and of a network every
            other block; `full`: every block.

    Raises:
        ValueError: for any other mode.
    """
    if mode not in MODES:
        raise ValueError(f"checkpointing must be one of {', '.join(MODES)}, got {mode!r}.")
    if isinstance(unet, Network):
        recompute(unet, {"none": [], "selective": unet.block_list[::2], "full": unet.block_list}[mode])
        return
    unet.enable_gradient_checkpointing()
    blocks = {"none": [], "selective": _finest_blocks(unet), "full": [unet]}[mode]
    checkpointed = {module for block in blocks for module in block.modules()}
    for module in unet.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = module in checkpointed


def _finest_blocks(unet: nn.Module) -> list[nn.Module]:
    has_attention = [getattr(block, "has_cross_attention", False) for block in unet.down_blocks]
    num_levels = has_attention.index(True) + 1 if any(has_attention) else 1
    return [*unet.down_blocks[:num_levels], *unet.up_blocks[-num_levels:]]


def recompute(network: Network, blocks: list[nn.Module]) -> None:
    """Recompute some blocks of a network in the backward pass, and no others; this changes no result.

    Args:
        network: changed in place.
        blocks: a part of `network.block_list`.
    """
    for block in network.block_list:
        vars(block).pop("forward", None)
        if block in blocks:
            block.forward = _Recomputed(block.forward)


class _Recomputed:
    """The forward of a block that keeps its inputs only."""

    def __init__(self, forward: Callable[..., object]) -> None:
        self._forward = forward

    def __call__(self, *args: object, **kwargs: object) -> object:
        if not torch.is_grad_enabled():
            return self._forward(*args, **kwargs)
        return checkpoint(self._on_copies, *args, use_reentrant=False, **kwargs)

    def _on_copies(self, *args: object, **kwargs: object) -> object:
        # some blocks write into their inputs, which must be unchanged when the block runs again
        return self._forward(*map(_copied, args), **{name: _copied(value) for name, value in kwargs.items()})


def _copied(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value
