"""Paths written in a manifest: allowed inside its folder only, whatever they look like."""

from pathlib import Path, PurePosixPath, PureWindowsPath


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
