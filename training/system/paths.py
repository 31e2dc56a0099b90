"""Paths that a manifest or a widget names: found below one folder in any spelling, and kept inside it.

Here alone it is decided whether a file is inside a folder; every list and every check asks here.
"""

import os
import re
import unicodedata
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

MAX_NAME_BYTES = 255  # of one name, on every common file system
_SHOWN = 120  # letters of a path in an error
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]) *(\..*)?", re.I)
_NOT_ON_WINDOWS = re.compile(r'[<>:"|?*\x00-\x1f]|[. ]$')


class OutsideError(ValueError):
    """A path that names nothing inside the folder; `is_link`: the path does, but a link in it leads out."""

    def __init__(self, message: str, *, is_link: bool = False) -> None:
        super().__init__(message)
        self.is_link = is_link


class FoundFile(NamedTuple):
    """A file that a manifest names.

    Attributes:
        path: below the folder; a link is not replaced by its target.
        is_respelled: whether letter case or Unicode form differ between manifest and disk.
    """

    path: Path
    is_respelled: bool


class FolderFiles:
    """Finds the files of one folder by the names that a manifest gives them.

    macOS and Windows take `x.png` and `X.PNG` for one name, and macOS stores accents in another form than
    manifests do. So that a folder means the same everywhere, a name that is not on the disk as written names
    the one file that differs from it only so.

    Args:
        root: the folder, resolved.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[Path, dict[str, list[str]]] = {}  # folder -> spelling key -> names on the disk

    def locate(self, written: str) -> str:
        """Return the path of a file relative to the root, or the path as written if no file is found.

        A path with folders is returned as written. A bare name is searched directly in the root, then below
        it, in whatever subfolders a download put it; the first match in the order of the paths is returned.
        Links to other folders are not followed.
        """
        if "/" in written or "\\" in written or not written or os.path.isfile(self._root / written):
            return written
        paths = self._below.get(spelling_key(written), [])
        return next((path for path in paths if PurePosixPath(path).name == written), (*paths, written)[0])

    def find(self, written: str) -> FoundFile:
        """Return the file of a path.

        Args:
            written: the path as written, with slashes or backslashes between its parts.

        Raises:
            OutsideError: if the path or a link leads out of the folder.
            FileNotFoundError: if there is no such file; it names files with the same stem.
        """
        path = path_below(self._root, written)
        if path is None:
            raise OutsideError(f"{_shown(written)} is no path inside the folder")
        exact = os.path.isfile(path)
        found = path if exact else self._respelled(path)
        if found is None and os.path.islink(path):
            raise FileNotFoundError(f"{_shown(written)} is a link to a file that is not there")
        if found is None:
            near = self._near(path)
            there = f"; there is {', '.join(near)}" if near else ""
            raise FileNotFoundError(f"{_shown(written)} is not there{there}")
        if not is_inside(found, self._root):
            raise OutsideError(f"{_shown(written)} is a link that leads out of the folder", is_link=True)
        return FoundFile(found, not exact)

    @cached_property
    def _below(self) -> dict[str, list[str]]:
        paths: dict[str, list[str]] = {}
        for folder, folders, files in os.walk(self._root):
            folders.sort()
            inner = PurePosixPath(Path(folder).relative_to(self._root).as_posix())
            for name in sorted(files):
                paths.setdefault(spelling_key(name), []).append((inner / name).as_posix())
        return paths

    def _respelled(self, path: Path) -> Path | None:
        """Return the only file whose path differs in letter case or Unicode form alone."""
        folder = self._root
        for part in path.relative_to(self._root).parts:
            names = self._names_in(folder).get(spelling_key(part), [])
            if part not in names and len(names) != 1:
                return None
            folder /= part if part in names else names[0]
        return folder if os.path.isfile(folder) else None

    def _near(self, path: Path) -> list[str]:
        """Return the files beside a missing one that differ from it in spelling or ending."""
        stem = spelling_key(PurePosixPath(path.name).stem)
        keys = self._names_in(path.parent)
        return [name for key, names in keys.items() if PurePosixPath(key).stem == stem for name in names][:3]

    def _names_in(self, folder: Path) -> dict[str, list[str]]:
        if folder not in self._names:
            names: dict[str, list[str]] = {}
            if is_inside(folder, self._root) and os.path.isdir(folder):
                for name in sorted(os.listdir(folder)):
                    names.setdefault(spelling_key(name), []).append(name)
            self._names[folder] = names
        return self._names[folder]


def path_below(root: Path, written: str) -> Path | None:
    """Return the path that a manifest or a widget names below a folder; None if it could lie elsewhere.

    The text may come from a stranger. Absolute paths, drives, `..`, streams (`a.png:b`) and the names that
    Windows reserves for devices are refused on every operating system, so that a folder means the same
    everywhere. Links are not looked at, see `is_inside`.

    Args:
        root: the folder.
        written: the path as written, with slashes or backslashes between its parts.
    """
    if not written or "\0" in written:
        return None
    windows = PureWindowsPath(written)
    posix = PurePosixPath(written.replace("\\", "/"))
    if windows.drive or windows.root or posix.is_absolute() or ":" in written or ".." in posix.parts:
        return None
    if not posix.parts or any(map(_DEVICE.fullmatch, posix.parts)):
        return None
    return root / posix


def is_inside(path: Path, root: Path) -> bool:
    """Return whether a path, all its links followed, stays inside a folder.

    A data hub keeps a snapshot as links into a folder of blobs beside it: `snapshots/<revision>/a.png` to
    `blobs/<hash>`. For a folder in a snapshot, these blobs are inside too.
    """
    try:
        target, base = path.resolve(), root.resolve()
    except (OSError, RuntimeError):  # a loop of links
        return False
    return any(target.is_relative_to(allowed) for allowed in (base, *_blobs(base)))


def _blobs(root: Path) -> list[Path]:
    snapshots = (folder.parent for folder in (root, *root.parents) if folder.parent.name == "snapshots")
    return [folder.with_name("blobs") for folder in snapshots if folder.with_name("blobs").is_dir()][:1]


def unusable_name(path: Path) -> str | None:
    """Return why some operating system could not write a new file or folder of this name; None: all can."""
    name = path.name
    if len(name.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
        return f"it has more than {MAX_NAME_BYTES} bytes; letters beyond a to z take up to four each"
    if _DEVICE.fullmatch(name):
        return "Windows reserves it for a device"
    if _NOT_ON_WINDOWS.search(name):
        return 'Windows allows neither < > : " | ? * nor a dot or space at the end'
    return None


def spelling_key(name: str) -> str:
    """Return what two spellings of one name share: letter case and Unicode form make no difference."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _shown(written: str) -> str:
    return written if len(written) <= _SHOWN else f"{written[:_SHOWN]}..."
