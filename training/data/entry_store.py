"""A folder of encoded tensors, one file per entry, named by what went into it; safe to delete at any time."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..tensor_file import open_tensors, write_tensors

_FORMAT = "2"  # raise it when the meaning of an entry changes: old entries are then never read


def entry_key(kind: str, content: str, *, encoder_id: str, resolution: int, dtype: torch.dtype) -> str:
    """Return the name of an entry: equal for equal inputs to the encoder, and only for those.

    Args:
        kind: `image` or `prompt`.
        content: hash of the image's bytes, or the prompt itself.
        encoder_id: names the weights that encode, see `BaseModel.encoder_id`.
        resolution: side of the encoded image in pixels; 0 for prompts.
        dtype: type the entry is stored in.

    Returns:
        64 hexadecimal digits.
    """
    parts = (_FORMAT, kind, content, encoder_id, str(resolution), str(dtype))
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode()
        digest.update(len(raw).to_bytes(8, "little") + raw)  # the lengths keep neighbours apart
    return digest.hexdigest()


class EntryStore:
    """Reads entries, makes missing ones, and keeps what it made at once, so an interrupted pass resumes.

    Args:
        folder: where the entries are; made when first needed. None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Return the entry `key`; where it is missing or damaged, make it and write it atomically.

        Args:
            key: see `entry_key`.
            make: gives fp32, fp16 or bf16 tensors by name, on the CPU.
        """
        if self._folder is None:
            return make()
        path = self._folder / key[:2] / f"{key}.safetensors"
        stored = _read(path)
        if stored is not None:
            return stored
        value = make()
        path.unlink(missing_ok=True)  # a damaged entry stands in the way of a good one
        try:
            write_tensors(path, value, {})
        except FileExistsError:
            pass  # another run made the same entry meanwhile
        return value


def _read(path: Path) -> dict[str, Tensor] | None:
    try:
        with open_tensors(path) as tensors:
            return dict(tensors)
    except (FileNotFoundError, ValueError):  # missing or torn: made anew
        return None
