"""Move pairs to another place, such as out of a folder that a program shows to everyone."""

import os
import secrets
import shutil
from pathlib import Path

from ..system.tensors import refuse_existing
from .coprov2 import images_beside, is_coprov2


def move_pairs(source: Path, target: Path) -> dict[Path, Path]:
    """Move a folder of pairs, finished or not, or the CSV of CoProV2 with the folder of its images.

    On one disk the folder is renamed. Between disks it is copied, and the source is removed when the copy is
    complete. A name that exists is never overwritten.

    Args:
        source: the folder, which may hold several folders of pairs, or the CSV.
        target: the new path of the folder or of the CSV.

    Returns:
        What was moved: old path -> new path.

    Raises:
        FileNotFoundError: if there is no such folder or CSV.
        ValueError: if the source is another file or a link, the target is inside it, or the images of a CSV
            have no folder of their own.
        FileExistsError: if a file or folder has the new name.
    """
    source, target = Path(os.path.abspath(source)), Path(os.path.abspath(target))
    moves = _moves(source, target)
    for old, new in moves.items():
        if old.is_symlink():
            raise ValueError(
                f"{old} is a link. Name what it leads to; a moved link leaves the pictures there."
            )
        if new.is_relative_to(old):
            raise ValueError(f"{new} is inside {old}. Choose a place outside of it.")
        refuse_existing(new)
    done: dict[Path, Path] = {}
    try:
        for old, new in moves.items():
            _move(old, new)
            done[old] = new
    except OSError:
        for old, new in done.items():
            _move(new, old)
        raise
    return done


def _moves(source: Path, target: Path) -> dict[Path, Path]:
    if source.is_dir():
        return {source: target}
    if not source.exists():
        raise FileNotFoundError(f"there is no folder or file {source}. Name one that holds pairs.")
    if is_coprov2(source):
        images = images_beside(source)
        if images == source.parent:
            raise ValueError(
                f"the images of {source.name} lie beside it, among all else in {source.parent}. Put the CSV "
                "and its images into a folder of their own, and move that folder."
            )
        return {images: target.with_name(images.name), source: target}
    raise ValueError(f"{source.name} holds no pairs. Name a folder of pairs, or the CSV of CoProV2.")


def _move(old: Path, new: Path) -> None:
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        old.rename(new)
        return
    except OSError:
        if old.stat().st_dev == new.parent.stat().st_dev:
            raise  # not because of two disks
    unfinished = new.with_name(f".{new.name}.{secrets.token_hex(8)}.tmp")
    try:
        copy = shutil.copytree if old.is_dir() else shutil.copy2
        copy(old, unfinished)
        unfinished.rename(new)
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished)
        else:
            unfinished.unlink(missing_ok=True)
    if old.is_dir():
        shutil.rmtree(old)
    else:
        old.unlink()
