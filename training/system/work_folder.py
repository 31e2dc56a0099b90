"""The folder of a long run: claimed for one set of settings, locked while in use, filled row by row.

Several processes may share a folder. Each row is on disk as soon as it is added, so a killed run loses none.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

NAME = "in_use.lock"  # the empty file stays behind; only a lock held on it counts
_KEPT_BYTES = 200  # of a name in a temporary one, which must not be longer than file systems allow
SYNC_S = 2.0  # seconds of rows that a power cut may lose; a killed process loses none


class RowLog:
    """Appends rows to the log of one process.

    Args:
        folder: of the run.
        number: of this process among those that share the run, from 0.
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
        """Write a row: safe at once if the process dies, and after `SYNC_S` if the power fails."""
        self._file.write(f"{json.dumps(row)}\n".encode())
        self._file.flush()
        if time.monotonic() - self._synced >= SYNC_S:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def logged_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of all processes, except for an incomplete last line of a file.

    Raises:
        ValueError: if any other line is damaged.
    """
    for path in sorted(folder.glob("rows*.jsonl")):
        lines = path.read_bytes().split(b"\n")[:-1]  # the text after the last line end is incomplete
        for number, line in enumerate(lines, start=1):
            try:
                yield json.loads(line)
            except ValueError as error:  # neither JSON nor UTF-8
                raise ValueError(
                    f"line {number} of {path} is damaged. Delete it, and its row is computed again."
                ) from error


def _cut_torn_end(path: Path) -> None:
    if path.exists():
        whole = path.read_bytes().rfind(b"\n") + 1
        if whole < path.stat().st_size:
            os.truncate(path, whole)


def claim(folder: Path, settings: Mapping[str, Any], *, file: str, holds: str) -> None:
    """Claim a folder for a run, or continue in one that was begun with the same settings.

    Args:
        folder: made if needed.
        settings: everything the results depend on; plain values.
        file: name of the file in the folder that stores the settings.
        holds: the content of the folder, for people, such as `results`.

    Raises:
        ValueError: if the folder has other content, or results made with other settings.
    """
    settings = json.loads(json.dumps(settings))  # in the form in which it is read back
    if not (folder / file).exists():
        _begin(folder, settings, file)
    stored = json.loads((folder / file).read_text(encoding="utf-8"))
    changed = sorted(key for key in stored.keys() | settings.keys() if stored.get(key) != settings.get(key))
    if changed:
        raise ValueError(
            f"{folder.name} holds {holds} made with another {', '.join(changed)}. Choose a new folder, or "
            "restore the setting to continue."
        )


def _begin(folder: Path, settings: Mapping[str, Any], file: str) -> None:
    """Store the settings in a folder that must be empty; another process may be doing the same."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder.name} is a file. Choose a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    foreign = sorted(entry.name for entry in folder.iterdir() if file not in entry.name)
    if (folder / file).exists():  # another process was first, and the other files belong to it
        return
    if foreign:
        raise ValueError(f"{folder.name} holds something else, such as {foreign[0]}. Choose a new folder.")
    write_whole(folder / file, json.dumps(settings, indent=1).encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it, so that no reader ever sees it incomplete."""
    temporary = unfinished(path)
    with open(temporary, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def unfinished(path: Path) -> Path:
    """Return a unique temporary path beside a file that is being written: hidden, ends in .tmp.

    It begins with the name of the file, which is cut where the file's name is almost as long as names may be.
    """
    kept = os.fsencode(path.name)[:_KEPT_BYTES].decode(errors="ignore")
    return path.with_name(f".{kept}.{secrets.token_hex(8)}.tmp")


def try_new_file(path: Path) -> None:
    """Try now what a run does at its end: write a new file under this name. Nothing stays behind.

    Folders that do not exist yet are not made; their names are tried where they will be.

    Raises:
        OSError: if the name is too long or not allowed here, or the folder cannot be written.
    """
    folder, names = path.parent, [path.name]
    while not os.path.lexists(folder) and folder.parent != folder:
        folder, names = folder.parent, [folder.name, *names]
    for name in names:
        with suppress(FileNotFoundError):
            os.lstat(folder / name)
    trial = path if folder == path.parent else unfinished(folder / path.name)
    open(trial, "xb").close()
    trial.unlink()


@contextmanager
def locked(folder: Path | None, name: str = NAME, *, wait: bool = False) -> Iterator[None]:
    """Keep every other run out of a folder while the context lasts.

    Args:
        folder: made if missing; None locks nothing.
        name: of the lock file, where several runs share a folder on purpose.
        wait: wait until the other run has released the folder; for work that takes a moment.

    Raises:
        ValueError: if another run is using the folder.
        OSError: if the folder cannot be written.
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
            import msvcrt  # each operating system has only one of the two modules

            file.seek(0)
            mode = msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK  # LK_LOCK waits for ten seconds
            msvcrt.locking(file.fileno(), mode, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
