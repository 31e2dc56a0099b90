"""How much memory a device can still give, and how to write bytes for people."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_CONTAINER = Path("/sys/fs/cgroup")  # Linux: a container may have less than the machine


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes a device can still give to this process; None where it cannot tell.

    On a GPU, what torch holds in reserve counts as free. On the CPU it is this process's share
    of the RAM that needs no swapping.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if device.type == "cpu":
        import psutil  # comes with ComfyUI and with peft; late, as only training needs it

        sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes that torchrun started here
        return int(min(psutil.virtual_memory().available, _left_in_container()) // sharing)
    return None


def readable(num_bytes: int) -> str:
    """Write a number of bytes as people do: `3.2 GiB`."""
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"


def _left_in_container() -> float:
    try:
        limit, used = ((_CONTAINER / name).read_text() for name in ("memory.max", "memory.current"))
        cache = dict(line.split() for line in (_CONTAINER / "memory.stat").read_text().splitlines())
        return int(limit) - int(used) + int(cache["inactive_file"])  # the kernel drops this when asked
    except (OSError, ValueError, KeyError):  # no container, or no limit ("max")
        return float("inf")
