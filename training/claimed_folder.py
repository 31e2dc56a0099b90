"""A folder that one kind of work owns, with what the work depends on written beside it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any


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
