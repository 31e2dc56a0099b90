"""What a computation needs, without doing it: shapes are followed, numbers are not."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten
FORMULAS = {  # of operations; with fused attention as the CPU has it, which torch's own table lacks
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(
        q.shape, k.shape, v.shape
    ),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: (
        sdpa_backward_flop_count(grad.shape, q.shape, k.shape, v.shape)
    ),
}


class Needs(NamedTuple):
    """What a computation needs.

    Attributes:
        peak_bytes: the most bytes of new tensors that are alive at one time.
        operations: in matrix products, convolutions and attention; a multiplication and an addition are two.
    """

    peak_bytes: int
    operations: int


def needs_of(compute: Callable[[Callable[[Tensor], Tensor]], None]) -> Needs:
    """Return what `compute` needs.

    torch's fake tensors stand in for all real ones: they have shape, type and device, but no storage, so
    neither time nor memory of the computation is spent. Counted is what torch allocates; the workspace of a
    library's kernel inside one operation is not.

    Args:
        compute: takes a function that turns real inputs into fake ones, and computes with them and with
            modules, whose parameters are turned by themselves. Gradients it leaves must be thrown away.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, CountedOperations() as counted:
        with _LiveBytes() as live:
            compute(mode.from_tensor)
    return Needs(live.peak, counted.total)


class CountedOperations(TorchDispatchMode):
    """Sees every operation and counts its multiplications and additions in `total`."""

    total = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        if formula := FORMULAS.get(operation._overloadpacket):
            self.total += formula(*args, **kwargs, out_val=result)
        return result


class _LiveBytes(TorchDispatchMode):
    """Sees every operation; a storage first met as its result counts until the last tensor on it is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs)):
            self._meet(tensor, 0)  # was there before: a parameter or an input
        result = operation(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._meet(tensor, tensor.untyped_storage().nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _meet(self, tensor: Tensor, num_bytes: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.live += num_bytes
        weakref.finalize(storage, self._forget, key, num_bytes)

    def _forget(self, key: int, num_bytes: int) -> None:
        self._known.discard(key)
        self.live -= num_bytes


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


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
