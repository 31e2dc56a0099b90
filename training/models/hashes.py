"""SHA-256 of model weights, and of values nested in any way: equal content has one hash in every session."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import Enum
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

AS_STORED = (torch.float16,)  # fp32 weights are rounded to this by many programs that load or store them
AS_ENCODERS = (torch.float16, torch.bfloat16)  # ComfyUI keeps a VAE in bf16 on many cards, after fp16 or not
_PLAIN = (type(None), bool, int, float, complex, str, bytes, Enum, torch.dtype)


class WeightsDigest:
    """SHA-256 over weights that are added one by one, in the order of their names.

    Args:
        rounded: types to round values to, one after the other. A weight that was rounded to one of them in
            memory has the hash of the weight in its file.
    """

    def __init__(self, rounded: Sequence[torch.dtype] = AS_STORED) -> None:
        self._digest, self._rounded = hashlib.sha256(), rounded

    def add(self, name: str, tensor: Tensor) -> None:
        """Add the next weight: its name, shape and values."""
        self._digest.update(f"{name}{tuple(tensor.shape)}".encode())
        values = tensor.detach().to("cpu")
        for dtype in self._rounded:
            values = values.to(dtype)
        self._digest.update(values.to(torch.float32).contiguous().numpy().data)

    def hexdigest(self) -> str:
        """Return the hash, 64 hexadecimal digits."""
        return self._digest.hexdigest()


def weights_hash(
    *models: nn.Module,
    without: Collection[str] = (),
    rounded: Sequence[torch.dtype] = AS_STORED,
    on_progress: Callable[[int], None] | None = None,
) -> str:
    """Return the SHA-256 over the names, shapes and rounded values of all weights, 64 hexadecimal digits.

    A model keeps its hash when it is read as fp32, or as fp16 from a file in fp32. Compute it before an
    adapter is attached.

    Args:
        models: models of diffusers or transformers; their order matters.
        without: names of weights to leave out.
        rounded: see `WeightsDigest`.
        on_progress: called with the number of weights read; an exception it raises stops the reading.
    """
    digest = WeightsDigest(rounded)
    weights = [weight for model in models for weight in sorted(model.state_dict().items())]
    weights = [(name, tensor) for name, tensor in weights if name not in without]
    for done, (name, tensor) in enumerate(weights, start=1):
        digest.add(name, tensor)
        if on_progress:
            on_progress(done)
    return digest.hexdigest()


def content_hash(value: Any, name: str) -> str:
    """Return the SHA-256 of a value, 64 hexadecimal digits.

    A tensor is hashed by shape and fp32 values, a function by its code and closure, any other object by its
    class and attributes, or by what its method `content_facts` returns. Devices are ignored.

    Args:
        value: plain values, tensors, functions and objects, nested in any way.
        name: name of the value in errors.

    Raises:
        ValueError: naming the first part whose content cannot be read, such as an open file.
    """
    return _ContentDigest().of(value, name)


class _ContentDigest:
    """Hashes values; an object that occurs twice is hashed once."""

    def __init__(self) -> None:
        # id -> (value, digest); the reference to the value keeps its id from being reused
        self._digests: dict[int, tuple[Any, str]] = {}

    def of(self, value: Any, name: str) -> str:
        """Return the text of a plain value, and the digest of any other."""
        if isinstance(value, _PLAIN):
            return f"{type(value).__name__} {value!r}"
        if id(value) not in self._digests:
            # a placeholder for a value that contains itself; it is hashed, so its words stay
            self._digests[id(value)] = value, "what it lies in"
            content = "\n".join(self._parts(value, name))
            self._digests[id(value)] = value, hashlib.sha256(content.encode()).hexdigest()
        return self._digests[id(value)][1]

    def _parts(self, value: Any, name: str) -> Iterator[str]:
        if hasattr(type(value), "content_facts"):
            yield self.of(value.content_facts(), name)
            return
        yield from (f"{kind.__module__}.{kind.__qualname__}" for kind in type(value).__mro__)
        if isinstance(value, Tensor):
            weights = WeightsDigest(rounded=())
            weights.add("", value)
            yield weights.hexdigest()
        elif isinstance(value, Mapping):
            for key, item in value.items():
                yield self.of(key, name)
                yield self.of(item, f"{name}.{key}" if isinstance(key, str) else name)
        elif isinstance(value, list | tuple):
            yield from (self.of(item, name) for item in value)
        elif isinstance(value, set | frozenset):
            yield from sorted(self.of(item, name) for item in value)
        elif isinstance(value, FunctionType):
            yield from self._function_parts(value, name)
        elif isinstance(value, MethodType):
            yield self.of(value.__func__, name)
            yield self.of(value.__self__, name)
        elif isinstance(value, type):
            yield f"{value.__module__}.{value.__qualname__}"
        elif hasattr(value, "__dict__") and not isinstance(value, ModuleType):
            yield self.of(vars(value), name)
        elif not isinstance(value, torch.device):
            raise ValueError(f"the content of {name} cannot be read: it holds a {type(value).__name__}.")

    def _function_parts(self, function: FunctionType, name: str) -> Iterator[str]:
        code = function.__code__
        yield function.__qualname__
        yield self.of([code.co_code, code.co_names], name)
        yield self.of([constant for constant in code.co_consts if isinstance(constant, _PLAIN)], name)
        yield self.of([function.__defaults__, function.__kwdefaults__], name)
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        yield self.of({variable: cell.cell_contents for variable, cell in cells}, name)
