"""Rows of long work: on disk as soon as each is there, whatever happens next, by one process or by many."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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


def claim(folder: Path, settings: Mapping[str, Any], *, file: str, holds: str) -> None:
    """Make a folder ours, or go on in one that was begun with the same settings.

    Args:
        folder: made if needed.
        settings: what the work depends on; plain values.
        file: name of the file in the folder that keeps them.
        holds: what the folder holds, for people, such as `pairs`.

    Raises:
        ValueError: if the folder holds something else, or work done with other settings.
    """
    settings = json.loads(json.dumps(settings))  # as it is read back
    if not (folder / file).exists():
        _begin(folder, settings, file)
    found = json.loads((folder / file).read_text(encoding="utf-8"))
    other = sorted(key for key in found.keys() | settings.keys() if found.get(key) != settings.get(key))
    if other:
        raise ValueError(
            f"{folder.name} holds {holds} made with another {', '.join(other)}. Choose a new folder, or "
            "set it back to go on."
        )


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under another name, then give it its own: it is never seen torn."""
    temporary = unfinished(path)
    with open(temporary, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def unfinished(path: Path) -> Path:
    """Return a name of its own for a file while it is written: hidden, ends in .tmp."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _begin(folder: Path, settings: Mapping[str, Any], file: str) -> None:
    """Make the folder ours; another process may be doing the same."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder.name} is a file. Choose a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    foreign = sorted(entry.name for entry in folder.iterdir() if file not in entry.name)
    if (folder / file).exists():  # another process was first, and what is there is its work
        return
    if foreign:
        raise ValueError(f"{folder.name} holds something else, such as {foreign[0]}. Choose a new folder.")
    write_whole(folder / file, json.dumps(settings, indent=1).encode())


NAME = "in_use.lock"  # stays behind, empty; what counts is who holds it


@contextmanager
def locked(folder: Path | None, name: str = NAME, *, wait: bool = False) -> Iterator[None]:
    """Keep every other run out of a folder while the context lasts.

    Args:
        folder: made when missing; None locks nothing.
        name: of the lock's file, where several runs share a folder on purpose.
        wait: until the other has ended, for work that takes a moment.

    Raises:
        ValueError: if another run is using it.
        OSError: if it cannot be written.
    """
    if folder is None:
        yield
        return
    with _opened(folder, name) as file:
        if not _take(file, wait):
            raise ValueError(
                f"another run is using the folder {folder}. Wait until it has ended, or choose another."
            )
        yield


def _opened(folder: Path, name: str) -> BinaryIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / name).open("ab")
    except OSError as error:
        reason = f"the run folder {folder} cannot be written ({error.strerror}). Choose another."
        raise OSError(error.errno, reason) from error


def _take(file: BinaryIO, wait: bool) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt  # each system has only one of the two

            file.seek(0)
            mode = msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK  # LK_LOCK: ten seconds
            msvcrt.locking(file.fileno(), mode, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
