"""Finished runs, found again by the content of everything that decided them, so that none runs twice.

A record is written after the last file of a run, and it counts only while its file still has the bytes that
the run wrote: a run that broke off, or whose file was changed or deleted since, is not found.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from .work_folder import write_whole

log = logging.getLogger(__name__)

_FORMAT = 1  # raised when the same inputs give another result
_RECORD = "*.json"


class Finished(NamedTuple):
    """A finished run.

    Attributes:
        file: that it wrote.
        values: figures of the run; plain values.
    """

    file: Path
    values: dict[str, Any]


class FinishedRuns:
    """A folder with a record of each finished run; it is safe to delete.

    Args:
        folder: made by the first record.
        kept: number of records to keep, the newest; files in the folder are deleted with their records. 0
            keeps all.
    """

    def __init__(self, folder: Path, *, kept: int = 0) -> None:
        self._folder, self._kept = folder, kept

    def key(self, **inputs: Any) -> str:
        """Return the name of the run with these inputs: plain values, contents and not only names."""
        text = json.dumps({"format": _FORMAT, **inputs}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def file(self, key: str, suffix: str) -> Path:
        """Return a file of the folder for a run whose result has no place of its own."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{key}{suffix}"

    def find(self, key: str) -> Finished | None:
        """Return the finished run of a key; None if there is none, or its file is not what it was."""
        try:
            record = json.loads((self._folder / f"{key}.json").read_text(encoding="utf-8"))
            file = Path(record["file"])
            if _sha256(file) == record["sha256"]:
                return Finished(file, record["values"])
        except (OSError, ValueError, KeyError, TypeError):  # no record, a damaged one, or no file
            return None
        log.info("%s has changed since its run ended, so the run is repeated", file.name)
        return None

    def add(self, key: str, file: Path, values: Mapping[str, Any]) -> None:
        """Record a run that is finished: its file is whole and in its place.

        A record that cannot be written is a warning in the log: the result matters more.
        """
        record = {"file": os.path.abspath(file), "sha256": _sha256(file), "values": values}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._folder / f"{key}.json", json.dumps(record).encode())
            self._forget_oldest()
        except OSError as error:
            log.warning("the run of %s could not be recorded and may be repeated: %s", file.name, error)

    def _forget_oldest(self) -> None:
        if not self._kept:
            return
        records = sorted(self._folder.glob(_RECORD), key=lambda path: path.stat().st_mtime_ns)
        for record in records[: -self._kept]:
            for path in self._folder.glob(f"{record.stem}.*"):
                with suppress(FileNotFoundError):  # another run forgets it too
                    path.unlink()


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        digest = hashlib.sha256()
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
