"""File names from widgets and API prompts, resolved inside one folder, and fingerprints of files.

Names are not trusted: one that leads out of its folder is refused. No function here knows the host; its
folders come in as arguments. Pairs are in a folder of the pack, because the host lists and serves its own.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ..training.system.paths import is_inside, path_below, unusable_name

BENCHMARKS = "alignguard_benchmarks"  # below ComfyUI's output/
PAIRS = "user/__alignguard/pairs"  # below ComfyUI's base directory
SAVED = "loras/alignguard"  # below ComfyUI's output/, where its LoRA lists look too
SAVED_GUARDS = "safety_guards"  # below ComfyUI's output/, where Prompt Guard looks too
SAVED_JUDGES = "safety_judges"  # below ComfyUI's output/
_RUN_NAME_BYTES = 200


class Places(NamedTuple):
    """The folders in which widgets name pairs and prompts; a name in both is that of the first.

    Attributes:
        pairs: `PAIRS`, which the host neither lists nor serves; the pack writes pairs only there.
        listed: ComfyUI's input folder, which the host lists and serves to every browser.
    """

    pairs: Path
    listed: Path


def pair_sources(places: Places, is_source: Callable[[Path], bool]) -> list[str]:
    """Return sources of preference pairs, up to two folders deep, such as `a/b` or `a/pairs.csv`.

    Args:
        places: where they may be.
        is_source: called with every folder and every CSV.
    """
    found: set[str] = set()
    for root in places:
        folders = [folder for folder in root.glob("*") if folder.is_dir() and is_inside(folder, root)]
        entries = [
            *folders,
            *(entry for folder in (root, *folders) for entry in folder.glob("*") if _is_csv(entry)),
        ]
        entries += [entry for folder in folders for entry in folder.glob("*/") if entry.is_dir()]
        found.update(name for name in _accepted(root, entries) if is_source(root / name))
    return sorted(found)


def input_files(roots: Iterable[Path], is_wanted: Callable[[Path], bool]) -> list[str]:
    """Return files below the roots, up to two folders deep, such as `folder/file.csv`.

    Args:
        roots: such as `Places`.
        is_wanted: called with every path; it decides by the name alone.
    """
    found: set[str] = set()
    for root in roots:
        paths = (path for depth in ("*", "*/*", "*/*/*") for path in root.glob(depth) if is_wanted(path))
        found.update(_accepted(root, (path for path in paths if path.is_file())))
    return sorted(found)


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _accepted(root: Path, paths: Iterable[Path]) -> list[str]:
    """Return the names of paths below root that `_input_path` accepts, so that no list offers another."""
    names = (path.relative_to(root).as_posix() for path in paths)
    return [name for name in names if _resolved_inside(root, name)]


def pairs_path(places: Places, name: str) -> Path:
    """Return an existing folder or file of pairs; see `_input_path`."""
    return _input_path(places, name, widget="folder", content="pairs")


def prompt_set_path(places: Places, name: str) -> Path:
    """Return an existing file of prompts; see `_input_path`."""
    return _input_path(places, name, widget="file", content="prompts")


def blocked_words_path(root: Path, name: str) -> Path:
    """Return an existing file of blocked words below ComfyUI's input folder; see `_input_path`."""
    return _input_path([root], name, widget="blocked_words", content="file")


def _input_path(roots: Sequence[Path], name: str, *, widget: str, content: str) -> Path:
    """Return an existing folder or file below one of the roots.

    Args:
        roots: ComfyUI's input folder, or `Places`.
        name: as the widget lists it.
        widget: name of the widget, for the error.
        content: what the file or folder holds, for the error.

    Raises:
        ValueError: if the name leads out of the roots, also through a link.
        FileNotFoundError: if there is no such file or folder.
    """
    places = "ComfyUI's input folder" + (f" or {PAIRS}" if len(roots) > 1 else "")
    paths = [path for root in roots if (path := _resolved_inside(root, name))]
    if not paths:
        raise ValueError(f"{widget} must be inside {places}, got {name!r}. Copy the {content} there.")
    for path in paths:
        if path.exists():
            return path
    raise FileNotFoundError(
        f"there is no folder or file {name!r} in {places}. Copy it there and press R to see it listed."
    )


def warning_of_listing(places: Places, path: Path) -> str:
    """Return a warning if unsafe pictures lie where the host lists and serves them; else an empty text.

    Args:
        places: where pairs may be.
        path: of a source of pairs, from `pairs_path`.
    """
    if not path.is_relative_to(os.path.abspath(places.listed)):
        return ""
    return (
        "WARNING: these pairs lie below ComfyUI's input folder, which it lists and serves to every browser, "
        f"unsafe pictures included. {_how_to_move(places, path)}"
    )


def _how_to_move(places: Places, path: Path) -> str:
    target = places.pairs / path.relative_to(os.path.abspath(places.listed))
    return (
        f'Move them, in the folder of this pack, with: python -m training pairs move "{path}" "{target}" '
        "(graphs keep their names)."
    )


def benchmark_path(root: Path, name: str) -> Path:
    """Return the folder of a benchmark below `BENCHMARKS`; it may exist already.

    Args:
        root: ComfyUI's output folder.
        name: of the folder; subfolders are allowed.

    Raises:
        ValueError: if the name is empty, leads out of `BENCHMARKS`, also through a link, or cannot be written
            on some operating system.
    """
    path = _resolved_inside(root / BENCHMARKS, name)
    if path is None:
        raise ValueError(f"folder must be inside output/{BENCHMARKS}, got {name!r}. Name a new one there.")
    _refuse_unusable(root, path, "folder")
    return path


def new_pairs_path(places: Places, name: str) -> Path:
    """Return the folder below `PAIRS` in which pairs are made; it may exist already.

    Args:
        places: where pairs may be.
        name: of the folder, at most two deep, so that Load Safety Pairs lists it.

    Raises:
        ValueError: if the name is empty, leads out of `PAIRS`, also through a link, is deeper, or cannot be
            written on some operating system; or if ComfyUI's input folder has pairs of that name, which an
            earlier version began there.
    """
    path = _resolved_inside(places.pairs, name)
    if path is None:
        raise ValueError(f"folder must be inside {PAIRS}, got {name!r}. Name a new one there.")
    inner = path.relative_to(os.path.abspath(places.pairs))
    if len(inner.parts) > 2:
        raise ValueError(f"folder must be at most two deep, as in alignguard_pairs/made, got {name!r}.")
    _refuse_unusable(places.pairs, path, "folder")
    begun = Path(os.path.abspath(places.listed)) / inner
    if not path.exists() and begun.is_dir() and any(begun.iterdir()):
        raise ValueError(
            f"{name!r} exists in ComfyUI's input folder. It lists and serves what is there, so pairs are no "
            f"longer made there. {_how_to_move(places, begun)} Or name another folder."
        )
    return path


def new_expert_path(root: Path, prefix: str, saved: str = SAVED) -> Path:
    """Return a free file `<prefix>_00001_.safetensors`, numbered as ComfyUI numbers its files.

    Args:
        root: ComfyUI's output folder.
        prefix: start of the file name; subfolders are allowed.
        saved: folder below root that it must be in.

    Raises:
        ValueError: if the prefix is empty, leads out of the folder, or cannot be written on some operating
            system.
    """
    target = _unnumbered(root, prefix, saved)
    numbered = re.compile(rf"{re.escape(target.name)}_(\d+)_.*", re.IGNORECASE)
    names = os.listdir(target.parent) if target.parent.is_dir() else []
    taken = [int(match[1]) for match in map(numbered.fullmatch, names) if match]
    path = target.with_name(f"{target.name}_{max(taken, default=0) + 1:05}_.safetensors")
    _refuse_unusable(root, path.with_stem(f"{path.stem}_partial"), "filename_prefix")  # a run's longest name
    return path


def listed_name(root: Path, path: Path) -> str:
    """Return the name under which ComfyUI's LoRA lists show a file of `new_expert_path`.

    Args:
        root: ComfyUI's output folder.
        path: of the file.
    """
    return path.relative_to((root / SAVED).parent).as_posix()


def run_name(root: Path, prefix: str) -> str:
    """Return the name of the run folder of a prefix, such as `mine%2Fhate`; see `new_expert_path`."""
    name = quote(os.path.relpath(_unnumbered(root, prefix), root / SAVED).replace(os.sep, "/"), safe="")
    if len(name) <= _RUN_NAME_BYTES:
        return name
    return f"{name[:100]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"  # a letter of CJK is %E6%97%A5


def _unnumbered(root: Path, prefix: str, saved: str = SAVED) -> Path:
    target = path_below(Path(os.path.abspath(root / saved)), prefix.strip())
    if target is None:
        raise ValueError(
            f"filename_prefix must name a file inside output/{saved}, got {prefix!r}. "
            "Use letters, digits and folders without '..'."
        )
    return target


def _resolved_inside(root: Path, name: str) -> Path | None:
    """Return root/name; None if the name is empty, or it or a link leads out of root."""
    path = path_below(Path(os.path.abspath(root)), name.strip())
    return path if path and is_inside(path, root) else None


def _refuse_unusable(root: Path, path: Path, widget: str) -> None:
    """Refuse a new path below root that some operating system could not write."""
    for part in path.relative_to(os.path.abspath(root)).parts:
        if cause := unusable_name(Path(part)):
            raise ValueError(f"{widget} cannot name a file {part[:40]!r}: {cause}. Choose another name.")


def file_fingerprint(path: Path) -> str:
    """Return a text that changes with the file: its modification time and size."""
    status = path.stat()
    return f"{status.st_mtime_ns} {status.st_size}"


def folder_fingerprint(folder: Path) -> str:
    """Return a text that changes with any file of the folder; no file is read."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    lines = [f"{file.relative_to(folder).as_posix()} {file_fingerprint(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def entry_fingerprint(path: Path) -> str:
    """Return the fingerprint of a file or a folder."""
    return folder_fingerprint(path) if path.is_dir() else file_fingerprint(path)


def source_fingerprint(path: Path, images: Path | None) -> str:
    """Return the fingerprint of a folder of pairs, or of a file of pairs and the folder of its images."""
    if images is None:
        return folder_fingerprint(path)
    return f"{file_fingerprint(path)} {folder_fingerprint(images)}"


class FolderWatch:
    """Counts how often others changed a folder that a node writes to.

    The node's own changes do not count, because they must not make the node run again.
    """

    def __init__(self) -> None:
        self._last: dict[Path, tuple[str, int]] = {}  # folder -> (last fingerprint, changes so far)

    def changes(self, folder: Path) -> int:
        """Return how often a folder was changed by others; 0 when it is first seen."""
        now = folder_fingerprint(folder)
        last, count = self._last.get(folder, (now, 0))
        self._last[folder] = now, count + (now != last)
        return self._last[folder][1]

    def leave(self, folder: Path) -> None:
        """Record the present state of a folder as the node's own work."""
        self._last[folder] = folder_fingerprint(folder), self._last.get(folder, ("", 0))[1]
