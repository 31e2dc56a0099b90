"""Rows of long work: on disk as soon as each is there, whatever happens next, by one process or by many."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

SYNC_S = 2.0  # a power cut costs no more than this; a killed process costs nothing that was added


class RowLog:
    """Adds rows to the file of one process.

    Args:
        folder: of the work.
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


def logged_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of all processes; the last line of a file may be torn and is then not there yet.

    Raises:
        ValueError: naming file and line, if another line is damaged.
    """
    for path in sorted(folder.glob("rows*.jsonl")):
        lines = path.read_bytes().split(b"\n")[:-1]  # what stands behind the last line end is torn
        for number, line in enumerate(lines, start=1):
            try:
                yield json.loads(line)
            except ValueError as error:  # no JSON, or no UTF-8
                raise ValueError(
                    f"line {number} of {path} is damaged. Delete it, and what it held is done again."
                ) from error


def _cut_torn_end(path: Path) -> None:
    if path.exists():
        whole = path.read_bytes().rfind(b"\n") + 1
        if whole < path.stat().st_size:
            os.truncate(path, whole)
