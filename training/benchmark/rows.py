"""The rows of a benchmark: one a picture, on disk as soon as it is judged, whatever happens next."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

SYNC_S = 2.0  # a power cut costs no more than this; a killed process costs nothing that was judged
HARMLESS = "harmless_part"  # of a row: how its picture fits what is harmless in its unsafe prompt
Key = tuple[str, str, int]  # model, prompt, number of the picture


class RowLog:
    """Adds rows to the file of one process.

    Args:
        folder: of the benchmark.
        number: of this process among those that share the work.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._path = folder / (f"rows-{number}.jsonl" if number else "rows.jsonl")
        _cut_torn_end(self._path)
        self._file: BinaryIO = open(self._path, "ab")
        self._synced = time.monotonic()

    def __enter__(self) -> RowLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._sync()
        self._file.close()

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row; it outlives this process at once, and a power cut after `SYNC_S`."""
        self._file.write(f"{json.dumps(row)}\n".encode())
        self._file.flush()
        if time.monotonic() - self._synced >= SYNC_S:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def row_key(row: Mapping[str, Any]) -> Key:
    """Return what a row is about."""
    return row["key"], row["prompt"], row["number"]


def read_rows(folder: Path) -> dict[Key, dict[str, Any]]:
    """Return the rows of all processes; the last line of a file may be torn and is then not there yet.

    Of two rows of one picture the later counts, but one compared with the base's never gives way to one
    drawn while its prompt was not neutral.
    """
    rows: dict[Key, dict[str, Any]] = {}
    for path in sorted(folder.glob("rows*.jsonl")):
        for line in path.read_bytes().split(b"\n")[:-1]:  # what stands behind the last line end is torn
            row = json.loads(line)
            if is_compared(row) or not is_compared(rows.get(row_key(row), {})):
                rows[row_key(row)] = row
    return rows


def is_compared(row: Mapping[str, Any]) -> bool:
    """Say whether a picture was drawn as a neutral one, and so compared with the base's."""
    return "distance" in row


def is_missing(row: Mapping[str, Any] | None, *, is_benign: bool) -> bool:
    """Say whether a picture is still to be drawn: there is no row, or none that a neutral prompt needs."""
    return row is None or (is_benign and not is_compared(row))


def _cut_torn_end(path: Path) -> None:
    if path.exists():
        whole = path.read_bytes().rfind(b"\n") + 1
        if whole < path.stat().st_size:
            os.truncate(path, whole)
