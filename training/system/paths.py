"""Paths that a manifest names: found below a folder, and kept inside it."""

import os
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath


class ImageIndex:
    """Finds files below a folder by name, in whatever subfolders a download put them.

    The folder is walked once, and only when a file is not at the path written.

    Args:
        root: resolved folder; links to other folders are not followed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def locate(self, written: str) -> str:
        """Return the path of a file relative to the root, or the path as written if no file is found.

        A path with folders is returned as written. A bare name is searched directly in the root, then below
        it; the first match in the order of the paths is returned.
        """
        if "/" in written or "\\" in written or not written or (self._root / written).exists():
            return written
        return self._below.get(written, written)

    @cached_property
    def _below(self) -> dict[str, str]:
        paths: dict[str, str] = {}
        for folder, folders, files in os.walk(self._root):
            folders.sort()
            inner = PurePosixPath(Path(folder).relative_to(self._root).as_posix())
            for name in files:
                paths.setdefault(name, (inner / name).as_posix())
        return paths


def contained_path(folder: Path, written: str) -> Path | None:
    """Return the file that a manifest names, or None if it could lie outside the folder.

    A manifest may come from a stranger. Absolute paths, drives, `..`, streams (`a.png:b`) and links that lead
    out are refused on every operating system, so that a folder means the same everywhere.

    Args:
        folder: the folder of the manifest, resolved.
        written: the path as written, with slashes or backslashes between its parts.
    """
    if not written or "\0" in written:
        return None
    windows = PureWindowsPath(written)
    posix = PurePosixPath(written.replace("\\", "/"))
    if windows.drive or windows.root or posix.is_absolute() or ":" in written or ".." in posix.parts:
        return None
    try:
        path = (folder / posix).resolve()
    except (OSError, RuntimeError):  # a loop of links
        return None
    return path if path.is_relative_to(folder) and path != folder else None
