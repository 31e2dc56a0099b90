"""Finds the images of a data set by name, in whatever folders its download put them."""

import os
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath


class ImageIndex:
    """The files below a folder; it is walked once, and only when a file is not where it is written.

    Args:
        root: resolved folder; links to other folders are not followed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def locate(self, written: str) -> str:
        """Return the path inside the root of the file meant, or the path as written where there is none.

        A path with folders is meant as written. A bare name is looked for directly in the root, then
        below it; the first in the order of the paths is taken.
        """
        if "/" in written or "\\" in written or not written or (self._root / written).exists():
            return written
        return self._below.get(written, written)

    @cached_property
    def _below(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for folder, folders, files in os.walk(self._root):
            folders.sort()
            inner = PurePosixPath(Path(folder).relative_to(self._root).as_posix())
            for name in files:
                found.setdefault(name, (inner / name).as_posix())
        return found


def contained_path(folder: Path, written: str) -> Path | None:
    """Return the file a manifest names, or None if it could lie outside the folder.

    Manifests come from strangers. Absolute paths, drives, `..`, streams (`a.png:b`) and links that
    lead out are refused on every system alike, so a folder means the same everywhere.

    Args:
        folder: the manifest's folder, resolved.
        written: the path as written, with slashes or backslashes between its parts.
    """
    if not written or "\0" in written:
        return None
    windows = PureWindowsPath(written)
    posix = PurePosixPath(written.replace("\\", "/"))
    if windows.drive or windows.root or posix.is_absolute() or ":" in written or ".." in posix.parts:
        return None
    try:
        found = (folder / posix).resolve()
    except (OSError, RuntimeError):  # a loop of links
        return None
    return found if found.is_relative_to(folder) and found != folder else None
