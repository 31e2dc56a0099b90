"""Names from widgets and API prompts, which are not trusted, turned into files inside one folder.

Nothing here knows the host: its folders come in as arguments.
"""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

BENCHMARKS = "alignguard_benchmarks"  # below ComfyUI's output/
SAVED = "loras/alignguard"  # below ComfyUI's output/, where its LoRA lists look too


def pair_sources(root: Path, is_source: Callable[[Path], bool]) -> list[str]:
    """Return what holds preference pairs below root, up to two deep, as `folder/folder` or `folder/file.csv`.

    Args:
        root: ComfyUI's input folder.
        is_source: asked for every folder and every CSV.
    """
    folders = [folder for folder in root.glob("*") if folder.is_dir()]
    entries = [*folders, *(entry for folder in (root, *folders) for entry in folder.glob("*.csv"))]
    entries += [entry for folder in folders for entry in folder.glob("*/") if entry.is_dir()]
    return sorted(entry.relative_to(root).as_posix() for entry in entries if is_source(entry))


def input_files(root: Path, is_wanted: Callable[[Path], bool]) -> list[str]:
    """Return files below root, up to two folders deep, as `folder/file.csv`.

    Args:
        root: ComfyUI's input folder.
        is_wanted: asked for every file, by its name alone.
    """
    found = (path for depth in ("*", "*/*", "*/*/*") for path in root.glob(depth) if is_wanted(path))
    return sorted(path.relative_to(root).as_posix() for path in found if path.is_file())


def pairs_path(root: Path, name: str) -> Path:
    """Return a folder or file of pairs below root; see `_input_path`."""
    return _input_path(root, name, "folder", "pairs")


def prompt_set_path(root: Path, name: str) -> Path:
    """Return a file of prompts below root; see `_input_path`."""
    return _input_path(root, name, "file", "prompts")


def blocked_words_path(root: Path, name: str) -> Path:
    """Return a file of blocked words below root; see `_input_path`."""
    return _input_path(root, name, "blocked_words", "file")


def _input_path(root: Path, name: str, widget: str, what: str) -> Path:
    """Return a folder or file below root.

    Args:
        root: ComfyUI's input folder.
        name: as the widget lists it.
        widget: its name, for the error.
        what: what it holds, for the error.

    Raises:
        ValueError: if the name leads out of root, also through a link.
        FileNotFoundError: if there is nothing of that name.
    """
    path = _inside(root, name)
    if path is None or not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(
            f"{widget} must be inside ComfyUI's input folder, got {name!r}. Copy the {what} there."
        )
    if not path.exists():
        raise FileNotFoundError(
            f"there is no folder or file {name!r} in ComfyUI's input folder. Copy it there, and press R."
        )
    return path


def benchmark_path(root: Path, name: str) -> Path:
    """Return the folder of a benchmark below `BENCHMARKS`; it may be there already.

    Args:
        root: ComfyUI's output folder.
        name: of the folder, folders allowed.

    Raises:
        ValueError: if the name is empty or leads out of it, also through a link.
    """
    path = _inside(root / BENCHMARKS, name)
    if path is None or not path.resolve().is_relative_to((root / BENCHMARKS).resolve()):
        raise ValueError(f"folder must be inside output/{BENCHMARKS}, got {name!r}. Name a new one there.")
    return path


def new_pairs_path(root: Path, name: str) -> Path:
    """Return the folder below root that pairs are made in; it may be there already.

    Args:
        root: ComfyUI's input folder.
        name: of the folder, at most two deep, so that Load Safety Pairs lists it.

    Raises:
        ValueError: if the name is empty, leads out of root, also through a link, or lies deeper.
    """
    path = _inside(root, name)
    if path is None or not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"folder must be inside ComfyUI's input folder, got {name!r}. Name a new one there.")
    if len(path.relative_to(os.path.abspath(root)).parts) > 2:
        raise ValueError(f"folder must be at most two deep, as in alignguard_pairs/made, got {name!r}.")
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


def entry_fingerprint(path: Path) -> str:
    """Return what changes when a file does, or any file of a folder."""
    return folder_fingerprint(path) if path.is_dir() else file_fingerprint(path)


def source_fingerprint(path: Path, images: Path | None) -> str:
    """Return what changes when a folder of pairs does, or a file of pairs or the folder of its images."""
    if images is None:
        return folder_fingerprint(path)
    return f"{file_fingerprint(path)} {folder_fingerprint(images)}"


class FolderWatch:
    """Counts the changes of folders that a node writes, but for its own, which must not make it run again."""

    def __init__(self) -> None:
        self._left: dict[Path, tuple[str, int]] = {}  # fingerprint as last seen or left, changes since

    def changes(self, folder: Path) -> int:
        """Return how often others were seen to change a folder; for a folder that is new here, 0."""
        now = folder_fingerprint(folder)
        left, count = self._left.get(folder, (now, 0))
        self._left[folder] = now, count + (now != left)
        return self._left[folder][1]

    def leave(self, folder: Path) -> None:
        """Take a folder as it is now for the node's own work."""
        self._left[folder] = folder_fingerprint(folder), self._left.get(folder, ("", 0))[1]


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
