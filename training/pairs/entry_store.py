"""A cache folder of encoded tensors: one file per entry, named by its inputs; safe to delete at any time."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..system.tensors import open_tensors, write_tensors

_FORMAT = "3"  # increment it when the meaning of an entry changes: old entries are then never read
_CONTENT_HASH = "content_hash"


def entry_key(kind: str, content: str, *, encoder_id: str, form: str, dtype: torch.dtype) -> str:
    """Return the name of an entry: equal for equal inputs to the encoder, and only for these.

    Args:
        kind: `image` or `prompt`.
        content: hash of the bytes of the image with the remarks on it, or the prompt itself.
        encoder_id: identifies the weights of the encoder, see `BaseModel.encoder_id`.
        form: what is done to the content before it is encoded, such as the size of the image.
        dtype: type that the entry is stored in.

    Returns:
        64 hexadecimal digits.
    """
    parts = (_FORMAT, kind, content, encoder_id, form, str(dtype))
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode()
        digest.update(len(raw).to_bytes(8, "little") + raw)  # the lengths separate the parts
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Entry:
    """An encoded picture or prompt: in a file that is memory-mapped when read, or in memory without one.

    Args:
        content_hash: of names, shapes and bytes of the tensors, 64 hexadecimal digits.
        path: the file; None where the tensors are in memory.
        held: the tensors, where there is no file.
    """

    content_hash: str
    path: Path | None = None
    held: Mapping[str, Tensor] = field(default_factory=dict)

    def read(self) -> Mapping[str, Tensor]:
        """Return the tensors by name, on the CPU; those of a file are paged in as they are used.

        Raises:
            FileNotFoundError: if the file has been deleted or damaged.
        """
        if self.path is None:
            return self.held
        try:
            with open_tensors(self.path) as tensors:
                return dict(tensors)
        except (FileNotFoundError, ValueError) as error:
            raise FileNotFoundError(
                f"{self.path.name} is gone from the cache of encoded pictures and prompts, or was changed "
                f"({self.path.parent.parent}). Leave it alone while training; start or resume the run again, "
                "and missing entries are encoded anew."
            ) from error


class EntryStore:
    """Finds entries, and makes and stores missing ones at once, so that an interrupted pass can resume.

    Args:
        folder: where the entries are; made when first needed. None: nothing is stored, and entries hold
            their tensors.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, key: str, make: Callable[[], dict[str, Tensor]]) -> Entry:
        """Return the entry `key`; where it is missing or damaged, make it and write it atomically.

        Args:
            key: from `entry_key`.
            make: returns fp32, fp16 or bf16 tensors by name, on the CPU.

        Raises:
            OSError: if the folder cannot be written.
        """
        if self._folder is None:
            value = make()
            return Entry(_content_hash(value), held=value)
        path = self._folder / key[:2] / f"{key}.safetensors"
        stored = _stored(path)
        if stored is not None:
            return stored
        value = make()
        try:
            return _written(path, value)
        except OSError as error:
            reason = (
                f"the cache of encoded pictures and prompts in {self._folder} cannot be written "
                f"({error.strerror or error}). Make room, or choose another cache folder."
            )
            raise OSError(error.errno, reason) from error


def _written(path: Path, value: Mapping[str, Tensor]) -> Entry:
    entry = Entry(_content_hash(value), path)
    try:
        write_tensors(path, value, {_CONTENT_HASH: entry.content_hash})
    except FileExistsError:
        if stored := _stored(path):  # another run made it meanwhile, and may be reading it
            return stored
        path.unlink(missing_ok=True)  # a damaged entry must not block a good one
        return _written(path, value)
    return entry


def _stored(path: Path) -> Entry | None:
    try:
        with open_tensors(path) as tensors:  # a torn file is shorter than its header says, and refused
            return Entry(tensors.metadata[_CONTENT_HASH], path)
    except (FileNotFoundError, ValueError, KeyError):  # missing, torn or foreign: made anew
        return None


def _content_hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
