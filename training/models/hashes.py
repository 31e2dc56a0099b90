"""A name for what values hold, however they are nested: equal content has one name, in every session."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from enum import Enum
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn


class WeightsDigest:
    """SHA-256 over weights that come one by one, in the order of their names."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, name: str, tensor: Tensor) -> None:
        """Take in the next weight: its name, shape and fp32 values."""
        self._digest.update(f"{name}{tuple(tensor.shape)}".encode())
        self._digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().data)

    def hexdigest(self) -> str:
        """Return 64 hexadecimal digits."""
        return self._digest.hexdigest()


def weights_hash(
    *models: nn.Module, without: Collection[str] = (), on_progress: Callable[[int], None] | None = None
) -> str:
    """Return sha256 over the names, shapes and fp32 values of all weights, 64 hexadecimal digits.

    fp16 and bf16 turn into fp32 without loss, so a model read as fp32 keeps its name. Take it before an
    adapter is attached.

    Args:
        models: of diffusers or transformers; their order counts.
        without: names of weights that do not count.
        on_progress: called with the number of weights read; whatever it raises stops the reading.
    """
    digest = WeightsDigest()
    weights = [weight for model in models for weight in sorted(model.state_dict().items())]
    weights = [(name, tensor) for name, tensor in weights if name not in without]
    for done, (name, tensor) in enumerate(weights, start=1):
        digest.add(name, tensor)
        if on_progress:
            on_progress(done)
    return digest.hexdigest()


_PLAIN = (type(None), bool, int, float, complex, str, bytes, Enum, torch.dtype)


def content_hash(value: Any, name: str) -> str:
    """Return sha256 over a value, 64 hexadecimal digits.

    Tensors count by shape and fp32 values, functions by their code and what they enclose, other objects by
    their class and attributes; devices not at all.

    Args:
        value: plain values, tensors, functions and objects, nested in any way.
        name: of the value, for the error.

    Raises:
        ValueError: naming the first part whose content cannot be seen, such as an open file.
    """
    return _Describer().digest(value, name)


class _Describer:
    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, str]] = {}  # holds the values too, so that no id is used twice

    def digest(self, value: Any, name: str) -> str:
        if isinstance(value, _PLAIN):
            return f"{type(value).__name__} {value!r}"
        if id(value) not in self._known:
            self._known[id(value)] = value, "what it lies in"  # a value may hold itself
            content = "\n".join(self._parts(value, name))
            self._known[id(value)] = value, hashlib.sha256(content.encode()).hexdigest()
        return self._known[id(value)][1]

    def _parts(self, value: Any, name: str) -> Iterator[str]:
        yield from (f"{kind.__module__}.{kind.__qualname__}" for kind in type(value).__mro__)
        if isinstance(value, Tensor):
            weights = WeightsDigest()
            weights.add("", value)
            yield weights.hexdigest()
        elif isinstance(value, Mapping):
            for key, each in value.items():
                yield self.digest(key, name)
                yield self.digest(each, f"{name}.{key}" if isinstance(key, str) else name)
        elif isinstance(value, list | tuple):
            yield from (self.digest(each, name) for each in value)
        elif isinstance(value, set | frozenset):
            yield from sorted(self.digest(each, name) for each in value)
        elif isinstance(value, FunctionType):
            yield from self._function(value, name)
        elif isinstance(value, MethodType):
            yield self.digest(value.__func__, name)
            yield self.digest(value.__self__, name)
        elif isinstance(value, type):
            yield f"{value.__module__}.{value.__qualname__}"
        elif hasattr(value, "__dict__") and not isinstance(value, ModuleType):
            yield self.digest(vars(value), name)
        elif not isinstance(value, torch.device):
            raise ValueError(f"the content of {name} cannot be seen: it holds a {type(value).__name__}.")

    def _function(self, function: FunctionType, name: str) -> Iterator[str]:
        code = function.__code__
        yield function.__qualname__
        yield self.digest([code.co_code, code.co_names], name)
        yield self.digest([each for each in code.co_consts if isinstance(each, _PLAIN)], name)
        yield self.digest([function.__defaults__, function.__kwdefaults__], name)
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        yield self.digest({variable: cell.cell_contents for variable, cell in cells}, name)
