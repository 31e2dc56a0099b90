"""One run at a time in a folder: a lock that the operating system holds, and frees if the run is killed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

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
