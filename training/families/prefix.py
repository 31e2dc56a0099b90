"""One part of a checkpoint: the tensors whose names begin alike."""

from collections.abc import Iterator, Mapping

from torch import Tensor


class WithoutPrefix(Mapping[str, Tensor]):
    """The tensors under a prefix, by the rest of their names; still read one by one."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        self._tensors, self._prefix = tensors, prefix
        self._names = {name.removeprefix(prefix): None for name in tensors if name.startswith(prefix)}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        return self._tensors[self._prefix + name]

    def __contains__(self, name: object) -> bool:
        return name in self._names  # the inherited one would read the tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
