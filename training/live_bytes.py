"""How many bytes a computation needs at its peak, without doing it: shapes are followed, numbers are not."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_bytes(compute: Callable[[Callable[[Tensor], Tensor]], None]) -> int:
    """Return the most bytes of new tensors that are alive at one time while `compute` runs.

    torch's fake tensors stand in for all real ones: they have shape, type and device, but no storage, so
    neither time nor memory of the computation is spent. Counted is what torch allocates; the workspace of a
    library's kernel inside one operation is not.

    Args:
        compute: takes a function that turns real inputs into fake ones, and computes with them and with
            modules, whose parameters are turned by themselves. Gradients it leaves must be thrown away.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, _LiveBytes() as live:
        compute(mode.from_tensor)
    return live.peak


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
