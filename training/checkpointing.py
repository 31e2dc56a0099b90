"""Gradient checkpointing: keep fewer activations for the backward pass and run those blocks again in it."""

from __future__ import annotations

from torch import nn

MODES = ("none", "selective", "full")  # in order of time; each keeps less than the one before


def set_checkpointing(unet: nn.Module, mode: str) -> None:
    """Choose which blocks of a UNet of diffusers are run again in the backward pass.

    The result of training is the same for every mode; only memory and time differ.

    Args:
        unet: changed in place.
        mode: `none`; `selective`: the levels of highest resolution, down to the first that has attention,
            on both sides (SD 1.5: one level, SDXL: two), where most bytes are; `full`: every block.

    Raises:
        ValueError: for another mode.
    """
    if mode not in MODES:
        raise ValueError(f"checkpointing must be one of {', '.join(MODES)}, got {mode!r}.")
    unet.enable_gradient_checkpointing()
    chosen = {"none": [], "selective": _finest_blocks(unet), "full": [unet]}[mode]
    on = {module for block in chosen for module in block.modules()}
    for module in unet.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = module in on


def _finest_blocks(unet: nn.Module) -> list[nn.Module]:
    has_attention = [getattr(block, "has_cross_attention", False) for block in unet.down_blocks]
    num_levels = has_attention.index(True) + 1 if any(has_attention) else 1
    return [*unet.down_blocks[:num_levels], *unet.up_blocks[-num_levels:]]
