"""Memory and operations that a computation needs, found from shapes alone, without computing it.

This rests on private parts of torch, which may change. So it is imported late, and training starts without
it where the import fails.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten
FORMULAS = {  # operation -> its count; torch's own table lacks the CPU's fused attention
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
        peak_bytes: largest total size of the new tensors that are alive at one time.
        operations: multiplications plus additions in matrix products, convolutions and attention.
    """

    peak_bytes: int
    operations: int


def needs_of(compute: Callable[[Callable[[Tensor], Tensor]], None]) -> Needs:
    """Return what `compute` needs.

    torch's fake tensors replace all real ones. They have a shape, a type and a device, but no storage, so
    the computation takes neither its time nor its memory. The count covers what torch allocates, but not the
    workspace of a library's kernel inside one operation.

    Args:
        compute: takes a function that converts real inputs into fake ones, and computes with them and with
            modules, whose parameters are converted automatically. The caller must discard its gradients.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, CountedOperations() as counted:
        with _LiveBytes() as live:
            compute(mode.from_tensor)
    return Needs(live.peak, counted.total)


class CountedOperations(TorchDispatchMode):
    """Count the multiplications and additions of every operation in `total`."""

    total = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = operation(*args, **kwargs)
        if formula := FORMULAS.get(operation._overloadpacket):
            self.total += formula(*args, **kwargs, out_val=result)
        return result


class _LiveBytes(TorchDispatchMode):
    """Track the bytes of storages that operations create, until the last tensor on a storage is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs)):
            self._see(tensor, 0)  # existed before: a parameter or an input
        result = operation(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._see(tensor, tensor.untyped_storage().nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _see(self, tensor: Tensor, num_bytes: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        self.live += num_bytes
        weakref.finalize(storage, self._forget, key, num_bytes)

    def _forget(self, key: int, num_bytes: int) -> None:
        self._seen.discard(key)
        self.live -= num_bytes


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
