"""The file of every guard: safetensors, bound to its text encoder by a hash, never holding a prompt.

A guard scores what one text encoder makes of a prompt. With another encoder its scores would be wrong without
looking so; it is therefore refused by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..system.tables import parse_json
from ..system.tensors import check_finite, open_tensors, write_tensors
from .calibration import Calibration
from .encoder import GuardEncoder

PREFIX = "alignguard."
VERSION = "1"
_TYPES = (torch.float32, torch.float16, torch.bfloat16)
_MOST_PROMPTS = 10**9  # of a calibration; a larger number is none of ours, and may not even be a float
_DAMAGED = "Train the guard again, or copy its file again."


@dataclass(frozen=True, eq=False)
class GuardFile:
    """The content of a guard's file.

    Args:
        kind: what the file says it is, such as `concept_guard`.
        encoder: kind of its text encoder, such as `clip`.
        encoder_id: hash of that encoder, see `GuardEncoder.id`.
        calibration: its threshold and how it was set.
        tensors: its weights by name.
        facts: everything else as values that JSON holds, such as the options of training.
        name: name of the file, for errors; empty before it is written.
    """

    kind: str
    encoder: str
    encoder_id: str
    calibration: Calibration
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def write(self, path: Path) -> Path:
        """Write the file under a temporary name and rename it; an existing file is never replaced.

        Raises:
            FileExistsError: if the file exists.
            ValueError: if a weight is not finite.
        """
        for name, tensor in self.tensors.items():
            check_finite(tensor, name, "Train the guard again at a lower learning_rate.")
        texts = {name: json.dumps(value) for name, value in self.facts.items()}
        texts |= {
            "version": VERSION,
            "kind": self.kind,
            "encoder": self.encoder,
            "encoder_id": self.encoder_id,
            "calibration": json.dumps(self.calibration.facts()),
        }
        metadata = {f"{PREFIX}{name}": text for name, text in texts.items()}
        return write_tensors(path, self.tensors, metadata)

    def check_encoder(self, encoder: GuardEncoder) -> None:
        """Check that an encoder is the one that the guard was trained with.

        Raises:
            ValueError: naming both, if it is not.
        """
        if (encoder.kind, encoder.id) == (self.encoder, self.encoder_id):
            return
        raise ValueError(
            f"{self.name or 'the guard'} was trained for the {self.encoder} encoder {self.encoder_id[:12]}, "
            f"but this is the {encoder.kind} encoder {encoder.id[:12]} ({encoder.name}). Its scores would be "
            "wrong. Use the checkpoint that it was trained with, or train a guard for this one."
        )


def read_guard_file(path: Path) -> GuardFile:
    """Read the file of a guard of any kind.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is a pickle, damaged, another kind of file, or holds a number that is not finite.
    """
    with open_tensors(path) as opened:
        metadata = opened.metadata
        _check_metadata(metadata, path.name)  # before a whole checkpoint is read as a guard
        tensors = dict(opened)
    for name, tensor in tensors.items():
        _check_tensor(tensor, f"{path.name}: {name}")
    texts = {name.removeprefix(PREFIX): text for name, text in metadata.items() if name.startswith(PREFIX)}
    kind, encoder, encoder_id = (texts.pop(name, "") for name in ("kind", "encoder", "encoder_id"))
    texts.pop("version")
    try:
        facts = {name: parse_json(text) for name, text in texts.items()}
        calibration = _calibration(facts.pop("calibration"))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the metadata of {path.name} is damaged ({error}). {_DAMAGED}") from error
    return GuardFile(kind, encoder, encoder_id, calibration, tensors, facts, path.name)


def _check_metadata(metadata: Mapping[str, str], name: str) -> None:
    if f"{PREFIX}encoder_id" not in metadata:
        raise ValueError(
            f"{name} is not a prompt guard: its metadata names no text encoder. Choose a file that Train "
            "Prompt Guard or `guard train` made."
        )
    if metadata.get(f"{PREFIX}version") != VERSION:
        raise ValueError(f"{name} was made by another version of this pack. Update it, or train anew.")


def _check_tensor(tensor: Tensor, name: str) -> None:
    if tensor.dtype not in _TYPES:
        raise ValueError(f"{name} must be fp32, fp16 or bf16, got {tensor.dtype}. {_DAMAGED}")
    check_finite(tensor, name, _DAMAGED)


def _calibration(fields: Mapping[str, Any]) -> Calibration:
    calibration = Calibration(**fields)
    numbers = (calibration.threshold, calibration.target_fpr)
    counts = (calibration.num_set, calibration.hits, calibration.num_measured)
    if not all(type(number) is float and math.isfinite(number) for number in numbers):
        raise ValueError("the threshold is not a finite number")
    if not all(type(count) is int and 0 <= count <= _MOST_PROMPTS for count in counts):
        raise ValueError(f"a count of calibration prompts is not a whole number from 0 to {_MOST_PROMPTS:,}")
    if calibration.hits > calibration.num_measured:
        raise ValueError("more calibration prompts are blocked than there are")
    return calibration
