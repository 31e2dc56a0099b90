"""One run at a time in a folder: a lock that the operating system holds, and frees if the run is killed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

NAME = "in_use.lock"  # stays behind, empty; what counts is who holds it


@contextmanager
def locked(folder: Path | None, name: str = NAME) -> Iterator[None]:
    """Keep every other run out of a folder while the context lasts.

    Args:
        folder: made when missing; None locks nothing.
        name: of the lock's file, where several runs share a folder on purpose.

    Raises:
        ValueError: if another run is using it.
        OSError: if it cannot be written.
    """
    if folder is None:
        yield
        return
    with _opened(folder, name) as file:
        if not _take(file):
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


def _take(file: BinaryIO) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt  # each system has only one of the two

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
