"""Safetensors files, read one tensor at a time and written atomically, with equal bytes for equal content."""

import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .work_folder import unfinished

_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
MAX_TENSORS = 100_000  # of a file; a whole SDXL checkpoint has under 3,000
_PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")
_PICKLE_MAGIC = (b"PK\x03\x04", *(bytes([0x80, protocol]) for protocol in range(2, 6)))  # zip, pickle 2 to 5


class LazyTensors(Mapping[str, Tensor]):
    """The tensors of an open file, each read on access, so that memory holds one at a time."""

    def __init__(self, handle: safe_open) -> None:
        self._handle = handle
        self._keys = dict.fromkeys(handle.keys())  # ordered, and quick to look up
        self.metadata: dict[str, str] = handle.metadata() or {}

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._keys:
            raise KeyError(key)
        return self._handle.get_tensor(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        return tuple(self._handle.get_slice(key).get_shape())


class WithoutPrefix(Mapping[str, Tensor]):
    """The tensors whose names start with a prefix, by the rest of their names; still read one by one."""

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


@contextmanager
def open_tensors(path: Path) -> Iterator[LazyTensors]:
    """Open a safetensors file for reading.

    Args:
        path: the file.

    Yields:
        Its tensors by key, read lazily on the CPU, and its `metadata`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is a pickle, empty, truncated or in another format, holds a name twice, or more
            than `MAX_TENSORS`.
    """
    _refuse_foreign(path)
    try:
        handle = safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(
            f"{path.name} is damaged or incomplete ({error}). Download or copy it again."
        ) from error
    with handle as opened:
        tensors = LazyTensors(opened)
        _refuse_odd_names(path, len(tensors))
        yield tensors


def check_finite(tensor: Tensor, name: str, advice: str) -> None:
    """Raise if a tensor holds NaN or infinity, which no result may be made of; it is read once, not copied.

    Args:
        tensor: of any shape; whole numbers are always finite, and on the meta device there are no values.
        name: of the tensor in the error.
        advice: what to do about it, a sentence.

    Raises:
        ValueError: with the name, the number of such values, and the advice.
    """
    if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta:
        return
    if not all(bool(bound.isfinite()) for bound in tensor.detach().aminmax()):  # NaN becomes both bounds
        count = int((~tensor.isfinite()).sum())
        raise ValueError(f"{name}: {count:,} of {tensor.numel():,} values are not finite. {advice}")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write a safetensors file under a temporary name and rename it; an existing file is never replaced.

    The official writer orders the metadata by a hash that changes with every run. The header is therefore
    written here, sorted, so that equal content gives equal bytes.

    Args:
        path: the file; its folder is made if needed.
        tensors: fp32, fp16 or bf16 tensors by key.
        metadata: strings, as the format requires.

    Returns:
        The path.

    Raises:
        FileExistsError: if the file exists, also if it appears while writing.
        ValueError: if a tensor has another type or a metadata value is not a string.
    """
    refuse_existing(path)
    order = sorted(tensors, key=lambda key: (-tensors[key].element_size(), key))  # keeps every tensor aligned
    header = _header({key: tensors[key] for key in order}, metadata)
    start = struct.pack("<Q", len(header)) + header
    return write_new(path, chain([start], (_raw(tensors[key]) for key in order)))


def write_new(path: Path, parts: Iterable[bytes]) -> Path:
    """Write a file under a temporary name and rename it; an existing file is never replaced.

    Args:
        path: the file; its folder is made if needed.
        parts: its bytes, in parts.

    Returns:
        The path.

    Raises:
        FileExistsError: if the file exists, also if it appears while writing.
    """
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(path)
    try:
        with open(temporary, "xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def refuse_existing(path: Path) -> None:
    """Raise if a path is taken; call it before work whose result will be saved there.

    Raises:
        FileExistsError: if a file or folder has that name.
    """
    if os.path.lexists(path):  # also a link that leads nowhere
        raise FileExistsError(_taken(path))


def _refuse_foreign(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(
            f"{path.name} does not exist in {path.parent}. Check the name and the folder."
        )
    if not path.is_file():
        raise ValueError(f"{path.name} is a folder or a device, not a file. Name a .safetensors file.")
    with open(path, "rb") as file:
        start = file.read(9)
    if path.stat().st_size == 0:
        raise ValueError(f"{path.name} is empty. Download or copy it again.")
    is_safetensors = start[8:] == b"{"  # a header length could begin like a pickle; the brace decides
    if path.suffix.lower() in _PICKLE_SUFFIXES or (start.startswith(_PICKLE_MAGIC) and not is_safetensors):
        raise ValueError(
            f"{path.name} is a pickle, which can run code when opened, so it is refused. "
            "Use the .safetensors version of it, or convert it in a program you trust."
        )
    if path.suffix.lower() != ".safetensors":
        raise ValueError(f"{path.name} is not a .safetensors file. Choose one that is.")


def _refuse_odd_names(path: Path, num_names: int) -> None:
    """Refuse too many tensors, and a name that occurs twice, of which the reader would take the last."""
    if num_names > MAX_TENSORS:
        raise ValueError(
            f"{path.name} holds {num_names:,} tensors; no model or LoRA has over {MAX_TENSORS:,}."
        )
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = file.read(length)
    if header.count(b'"data_offsets"') != num_names and _names_twice(header):
        raise ValueError(f"{path.name} is damaged: a name occurs twice in its header. Download it again.")


def _names_twice(header: bytes) -> bool:
    def unique(items: list[tuple[str, object]]) -> bool:
        return len(dict(items)) < len(items) or any(value is True for _, value in items)

    return json.loads(header, object_pairs_hook=unique)


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    not_text = [key for key, value in metadata.items() if not isinstance(value, str)]
    if not_text:
        raise ValueError(f"metadata values must be strings, got another type for {', '.join(not_text)}.")
    entries: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    offset = 0
    for key, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise ValueError(f"{key} must be fp32, fp16 or bf16, got {tensor.dtype}.")
        end = offset + tensor.numel() * tensor.element_size()
        entries[key] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def _raw(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _publish(temporary: Path, path: Path) -> None:
    """Rename the finished file, unless another file has taken the name meanwhile."""
    try:
        os.link(temporary, path)  # atomic, and fails if the name is taken
        return
    except FileExistsError as error:
        raise FileExistsError(_taken(path)) from error
    except OSError:  # no hard links here (FAT, some network drives): reserve the name, then replace it
        pass
    try:
        open(path, "xb").close()
    except FileExistsError as error:
        raise FileExistsError(_taken(path)) from error
    os.replace(temporary, path)


def _taken(path: Path) -> str:
    return f"{path.name} already exists in {path.parent}. Choose another name, or move the old file away."
