"""Bytes of tensors: those alive at one time, and those that autograd keeps for the backward pass.

Both count each storage once, however many views it has, and also work on tensors without memory. The
workspace inside a kernel and the rounding of an allocator are not counted.
"""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GIB = 2**30


class LiveBytes(TorchDispatchMode):
    """Count the bytes of the tensors that operations make inside the context.

    Attributes:
        now: bytes alive.
        peak: most bytes alive at once.

    Args:
        existing: tensors that exist already; they count from the start.
    """

    def __init__(self, existing: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref] = {}
        for tensor in existing:
            self._add(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **kwargs or {})
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._alive and self._alive[key]() is storage:
            return
        size = storage.nbytes()

        def forget(_: Any) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, forget)
        self.now += size
        self.peak = max(self.peak, self.now)


@contextmanager
def saved_for_backward(outside: Iterable[Tensor]) -> Iterator[list[int]]:
    """Collect the bytes of each storage that autograd keeps inside the context.

    Args:
        outside: tensors that do not count because they stay in memory anyway, such as weights.
    """
    sizes: list[int] = []
    counted = {id(tensor.untyped_storage()): tensor for tensor in outside}  # held, so that no id is reused

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if id(storage) not in counted:
            counted[id(storage)] = tensor
            sizes.append(storage.nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes
