"""Finds the images of a data set by name, in whatever folders its download put them."""

import os
from functools import cached_property
from pathlib import Path, PurePosixPath


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
