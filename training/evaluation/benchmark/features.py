"""Features of neutral pictures for FID: fixed-width records in one file per process, no pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..measures.fid import WIDTH

_BYTES = 4 * WIDTH  # of one record, fp32


class FeatureLog:
    """Appends features to the file of one process; complete records survive a crash.

    Args:
        folder: folder of the benchmark.
        process: number of this process.
    """

    def __init__(self, folder: Path, process: int) -> None:
        self._path, self._process = _file(folder, process), process

    def add(self, features: Tensor) -> tuple[int, int]:
        """Append features (2048,) and return their place: (process, index of the record)."""
        with open(self._path, "ab") as file:
            num_records = file.tell() // _BYTES
            if file.tell() % _BYTES:  # a run was killed while it wrote
                os.truncate(file.fileno(), num_records * _BYTES)
            file.write(features.numpy().astype("<f4").tobytes())
            file.flush()
            os.fsync(file.fileno())
        return self._process, num_records


def read_features(folder: Path, places: Sequence[tuple[int, int]]) -> Tensor:
    """Return the features at the given places, (len(places), 2048) fp32."""
    tables = {process: _table(_file(folder, process)) for process in {process for process, _ in places}}
    records = [np.array(tables[process][index]) for process, index in places]
    return torch.from_numpy(np.stack(records)) if records else torch.zeros(0, WIDTH)


def _table(path: Path) -> np.memmap:
    """Return the complete records of a file; another process may be appending more."""
    return np.memmap(path, dtype="<f4", mode="r", shape=(path.stat().st_size // _BYTES, WIDTH))


def _file(folder: Path, process: int) -> Path:
    return folder / f"features-{process}.f32"
