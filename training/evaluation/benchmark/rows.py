"""Features of neutral pictures, kept for FID while a benchmark goes on: rows of numbers, no pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...system.work_folder import logged_rows
from ..measures.fid import WIDTH

_BYTES = 4 * WIDTH  # fp32


class FeatureLog:
    """Adds features to the file of one process; whole ones stay, whatever happens.

    Args:
        folder: of the benchmark.
        number: of this process.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._path, self._number = _file(folder, number), number

    def add(self, features: Tensor) -> tuple[int, int]:
        """Write features (2048,) and return their place: number of the process, and of the features."""
        with open(self._path, "ab") as file:
            whole = file.tell() // _BYTES
            if file.tell() % _BYTES:  # a run was killed while it wrote
                os.truncate(file.fileno(), whole * _BYTES)
            file.write(features.numpy().astype("<f4").tobytes())
            file.flush()
            os.fsync(file.fileno())
        return self._number, whole


def read_features(folder: Path, places: Sequence[tuple[int, int]]) -> Tensor:
    """Return the features at some places, (len(places), 2048) fp32."""
    tables = {number: _table(_file(folder, number)) for number in {number for number, _ in places}}
    found = [np.array(tables[number][index]) for number, index in places]
    return torch.from_numpy(np.stack(found)) if found else torch.zeros(0, WIDTH)


def _table(path: Path) -> np.memmap:
    """Return a file's whole features; another process may be writing behind them."""
    return np.memmap(path, dtype="<f4", mode="r", shape=(path.stat().st_size // _BYTES, WIDTH))


def _file(folder: Path, number: int) -> Path:
    return folder / f"features-{number}.f32"


HARMLESS = "harmless_part"  # of a row: how its picture fits what is harmless in its unsafe prompt
JUDGES = "judges"  # of a row: what each of several judges says alone, by its label
Key = tuple[str, str, int]  # model, prompt, number of the picture


def row_key(row: Mapping[str, Any]) -> Key:
    """Return what a row is about."""
    return row["key"], row["prompt"], row["number"]


def read_rows(folder: Path) -> dict[Key, dict[str, Any]]:
    """Return the rows of all processes, see `logged_rows`.

    Of two rows of one picture the later counts, but one compared with the base's never gives way to one
    drawn while its prompt was not neutral.
    """
    rows: dict[Key, dict[str, Any]] = {}
    for row in logged_rows(folder):
        if is_compared(row) or not is_compared(rows.get(row_key(row), {})):
            rows[row_key(row)] = row
    return rows


def is_compared(row: Mapping[str, Any]) -> bool:
    """Say whether a picture was drawn as a neutral one, and so compared with the base's."""
    return "distance" in row


def is_missing(row: Mapping[str, Any] | None, *, is_benign: bool) -> bool:
    """Say whether a picture is still to be drawn: there is no row, or none that a neutral prompt needs."""
    return row is None or (is_benign and not is_compared(row))
