"""What a model on disk holds besides its UNet, and what of it differs between two models."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..system.tensors import open_tensors
from .native_unet import CHECKPOINT_PREFIX
from .part_names import text_names, unexplained, vae_names

TEXT_ENCODER, SECOND_TEXT_ENCODER, VAE = "text encoder", "second text encoder", "VAE"
OTHER = "other tensors"
_PREFIXES = {  # of a checkpoint; the longer ones first
    "conditioner.embedders.1.": SECOND_TEXT_ENCODER,
    "conditioner.": TEXT_ENCODER,
    "cond_stage_model.": TEXT_ENCODER,
    "text_encoders.": TEXT_ENCODER,  # all of SD 3's
    "first_stage_model.": VAE,
    "": OTHER,
}
_FOLDERS = {"text_encoder": TEXT_ENCODER, "text_encoder_2": SECOND_TEXT_ENCODER, "vae": VAE}
_WEIGHTS = ("model.safetensors", "diffusion_pytorch_model.safetensors")  # before variants such as fp16

_INDEX = ".safetensors.index.json"
_NAMES = {TEXT_ENCODER: text_names, SECOND_TEXT_ENCODER: text_names, VAE: vae_names}


class _Place(NamedTuple):
    """Where a tensor is stored: the file, its key, and how to read what is stored there."""

    file: Path
    key: str
    read: Callable[[Tensor], Tensor]

    def tensor(self) -> Tensor:
        with open_tensors(self.file) as tensors:
            return self.read(tensors[self.key])


_Places = dict[str, _Place]  # by the name inside the part


class PartChange(NamedTuple):
    """How a part of two models differs.

    Attributes:
        tensors: number of tensors that both have.
        changed: how many of them differ by more than the rounding of their types.
        norm: Frobenius norm of the change of those that have the same shape and finite values.
        only_in_one: number of tensors that only one model has.
    """

    tensors: int
    changed: int
    norm: float
    only_in_one: int

    @property
    def differs(self) -> bool:
        """Whether anything differs."""
        return bool(self.changed or self.only_in_one)


class OtherParts:
    """The tensors of a model besides its UNet; only their names stay in memory.

    Attributes:
        parts: name of the part -> its tensors. Empty for a UNet alone.
        layout: `checkpoint` or `folder`.
    """

    def __init__(self, path: Path) -> None:
        """Find the parts of a checkpoint or a diffusers folder.

        Raises:
            FileNotFoundError: if the path does not exist.
            ValueError: naming the file, if one is a pickle or damaged.
        """
        self.parts: dict[str, _Places] = {}
        self.layout = "folder" if path.is_dir() else "checkpoint"
        if self.layout == "folder":
            for name, part in _FOLDERS.items():
                for file in _files(path / name):
                    self._add(file, {"": part}, path.is_dir())
        elif not path.name.endswith(_INDEX):  # an index stands for the shards of a UNet
            self._add(path, _PREFIXES, False)

    def _add(self, file: Path, prefixes: Mapping[str, str], is_whole: bool) -> None:
        with open_tensors(file) as tensors:
            keys = list(tensors)
        if not is_whole and not any(key.startswith(CHECKPOINT_PREFIX) for key in keys):
            return  # a UNet alone
        stored: dict[str, dict[str, str]] = {}  # part -> name inside it -> key
        for key in keys:
            if is_whole or not key.startswith(CHECKPOINT_PREFIX):
                prefix = next(prefix for prefix in prefixes if key.startswith(prefix))
                stored.setdefault(prefixes[prefix], {})[key.removeprefix(prefix)] = key
        for part, short in stored.items():
            names = _NAMES[part](short) if part in _NAMES else {name: (name, _as_it_is) for name in short}
            places = {name: _Place(file, short[old], read) for name, (old, read) in names.items()}
            self.parts.setdefault(part, {}).update(places)


def num_comparisons(before: OtherParts, after: OtherParts) -> int:
    """Return how many tensors `compare_parts` compares."""
    return sum(len(places.keys() & after.parts.get(part, {}).keys()) for part, places in before.parts.items())


def other_parts_sentence(changes: Mapping[str, PartChange | None]) -> str:
    """Return what `compare_parts` says, for people."""
    texts = []
    for part, change in changes.items():
        if change is None:
            texts.append(f"{part} not compared (only in one model, or under other names)")
        elif change.differs:
            alone = f" and {change.only_in_one} in only one model" if change.only_in_one else ""
            counts = f"{change.changed} of {change.tensors} tensors{alone}"
            texts.append(f"{part} differs in {counts} (norm of the change {change.norm:.3g})")
    same = [part for part, change in changes.items() if change and not change.differs]
    texts += [f"{', '.join(same)} equal"] if same else []
    return "; ".join(texts) or "nothing"


def compare_parts(
    before: OtherParts, after: OtherParts, *, on_tensor: Callable[[], None] | None = None
) -> dict[str, PartChange | None]:
    """Compare every part that either model has; two tensors are in memory at a time.

    Args:
        before: the one model.
        after: the other.
        on_tensor: called after each comparison; an exception raised by it ends the work.

    Returns:
        Part -> how it differs; None if it cannot be compared, because a model lacks it or no name is in both.
    """
    changes: dict[str, PartChange | None] = {}
    for part in sorted(before.parts.keys() | after.parts.keys()):
        old, new = before.parts.get(part), after.parts.get(part)
        if old is None or new is None or not old.keys() & new.keys():
            changes[part] = None
            continue
        changed, squares = 0, []
        for name in sorted(old.keys() & new.keys()):
            change = _difference(old[name].tensor(), new[name].tensor())
            if change is None or change > 0:
                changed += 1
                squares.append(change or 0.0)
            if on_tensor:
                on_tensor()
        norm = math.sqrt(math.fsum(squares))
        alone = len(old.keys() ^ new.keys())
        if before.layout != after.layout:
            files, folder = (old, new) if after.layout == "folder" else (new, old)
            alone = len(unexplained(files, folder)) + len(folder.keys() - files.keys())
        changes[part] = PartChange(len(old.keys() & new.keys()), changed, norm, alone)
    return changes


def _difference(old: Tensor, new: Tensor) -> float | None:
    """Return the sum of squares of a change; None if it has no size, for shapes or values that do not fit."""
    if old.shape != new.shape:
        return None
    if old.dtype != new.dtype and old.is_floating_point() and new.is_floating_point():
        coarser = min(old.dtype, new.dtype, key=lambda dtype: torch.finfo(dtype).bits)
        if torch.equal(old.to(coarser), new.to(coarser)):
            return 0.0
    elif torch.equal(old, new):
        return 0.0
    squared = float((new.double() - old.double()).square().sum())
    return squared if math.isfinite(squared) else None


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _files(folder: Path) -> list[Path]:
    """Return the weights of one part of a diffusers folder: the plain file, or its shards."""
    plain = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    if plain:
        return plain[:1]
    for index in sorted(folder.glob(f"*{_INDEX}"), key=lambda file: (len(file.name), file.name)):
        try:
            shards = {
                str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            }
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise ValueError(f"{index.name} is damaged ({error!r}). Download it again.") from error
        return [folder / Path(name).name for name in sorted(shards)]
    return sorted(folder.glob("*.safetensors"))[:1]
