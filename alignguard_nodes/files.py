"""Names from widgets and API prompts, which are not trusted, turned into files inside one folder.

Nothing here knows the host: its folders come in as arguments.
"""

import hashlib
import os
import re
from pathlib import Path
from urllib.parse import quote

SAVED = "loras/alignguard"  # below ComfyUI's output/, where its LoRA lists look too
PAIRS_FILE = "pairs.jsonl"


def pair_folders(root: Path) -> list[str]:
    """Return the folders below root, up to two deep, that hold preference pairs, as `folder/folder`."""
    found = [*root.glob(f"*/{PAIRS_FILE}"), *root.glob(f"*/*/{PAIRS_FILE}")]
    return sorted(file.parent.relative_to(root).as_posix() for file in found)


def pairs_path(root: Path, name: str) -> Path:
    """Return a folder below root.

    Args:
        root: ComfyUI's input folder.
        name: as `pair_folders` lists it.

    Raises:
        ValueError: if the name leads out of root, also through a link.
        FileNotFoundError: if there is no such folder.
    """
    path = _inside(root, name)
    if path is None or not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"folder must be inside ComfyUI's input folder, got {name!r}. Copy the pairs there.")
    if not path.is_dir():
        raise FileNotFoundError(
            f"there is no folder {name!r} in ComfyUI's input folder. Copy it there, and press R."
        )
    return path


def new_expert_path(root: Path, prefix: str) -> Path:
    """Return a free file `<prefix>_00001_.safetensors` in `SAVED`, numbered as ComfyUI numbers its files.

    Args:
        root: ComfyUI's output folder.
        prefix: start of the name, folders allowed.

    Raises:
        ValueError: if the prefix is empty or leads out of the folder.
    """
    target = _unnumbered(root, prefix)
    counted = re.compile(rf"{re.escape(target.name)}_(\d+)_.*", re.IGNORECASE)
    names = os.listdir(target.parent) if target.parent.is_dir() else []
    taken = [int(match[1]) for match in map(counted.fullmatch, names) if match]
    return target.with_name(f"{target.name}_{max(taken, default=0) + 1:05}_.safetensors")


def run_name(root: Path, prefix: str) -> str:
    """Return a folder name of its own for the runs of a prefix, `mine%2Fhate`; see `new_expert_path`."""
    return quote(os.path.relpath(_unnumbered(root, prefix), root / SAVED).replace(os.sep, "/"), safe="")


def file_fingerprint(path: Path) -> str:
    """Return what changes when the file does: its time and size."""
    status = path.stat()
    return f"{status.st_mtime_ns} {status.st_size}"


def folder_fingerprint(folder: Path) -> str:
    """Return what changes when any file of the folder does; no file is read."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    lines = [f"{file.relative_to(folder).as_posix()} {file_fingerprint(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _unnumbered(root: Path, prefix: str) -> Path:
    target = _inside(root / SAVED, prefix)
    if target is None:
        raise ValueError(
            f"filename_prefix must name a file inside output/{SAVED}, got {prefix!r}. "
            "Use letters, digits and folders without '..'."
        )
    return target


def _inside(root: Path, name: str) -> Path | None:
    """Return root/name, or None if the name is empty or leads elsewhere, on any system."""
    if ":" in name or "\0" in name:  # a drive or a stream on Windows
        return None
    base = os.path.abspath(root)
    path = os.path.normpath(os.path.join(base, name.strip().replace("\\", "/")))
    return Path(path) if path.startswith(base + os.sep) else None
