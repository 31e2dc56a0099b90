"""How much memory a device has left, and how checkpointing makes training use less of it."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

from ..models.network import Network, recompute

MODES = ("none", "selective", "full")  # by time, fastest first; each needs less memory than the one before
_CGROUP = Path("/sys/fs/cgroup")  # Linux: a container may have less memory than the machine


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
        recompute(unet, {"none": [], "selective": unet.blocks[::2], "full": unet.blocks}[mode])
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


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes that a device can still give to this process; None where the device cannot say.

    On a GPU, memory that torch holds in reserve counts as free. On the CPU it is this process's share of
    the RAM that is available without swapping.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if device.type == "cpu":
        import psutil  # comes with ComfyUI and with peft; late, because only training needs it

        num_sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes that torchrun started here
        return int(min(psutil.virtual_memory().available, _free_in_container()) // num_sharing)
    return None


def _free_in_container() -> float:
    try:
        limit, used = ((_CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        cache = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return int(limit) - int(used) + int(cache["inactive_file"])  # the kernel frees this cache on demand
    except (OSError, ValueError, KeyError):  # no container, or no limit ("max")
        return float("inf")
