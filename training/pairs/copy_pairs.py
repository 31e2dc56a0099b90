"""Copy the pairs of any source into a new pairs folder; the original files stay where they are."""

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..system.paths import spelling_key, unusable_name
from ..system.tensors import refuse_existing
from ..system.work_folder import unfinished
from .folder import NEUTRAL_FILE, PAIRS_FILE
from .pair import SafetyPairs

REPORT_FILE = "import_report.json"
_IMAGES = "images"
_DIGITS = 30  # room for numbers before a name that is taken


def copy_pairs(
    pairs: SafetyPairs, out: Path, *, on_progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write `pairs.jsonl`, its images and the report of `pairs` into a new folder.

    Images are hard-linked where the disk allows it, so that they take no extra space, else copied. The folder
    appears complete or not at all.

    Args:
        pairs: checked pairs, from `load_pairs` or `collect_pairs`.
        out: the new folder.
        on_progress: called with (done, total) after each row; whatever it raises stops the writing and leaves
            nothing behind.

    Returns:
        The folder.

    Raises:
        FileExistsError: if a file or folder has that name, also if it appears during the writing.
    """
    refuse_existing(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = unfinished(out)
    (temporary / _IMAGES).mkdir(parents=True)
    try:
        place = _Placer(temporary)
        progress, total = on_progress or (lambda done, total: None), len(pairs.pairs) + len(pairs.neutral)
        numbers = itertools.count(1)

        def reported(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
            for row in rows:
                yield row
                progress(next(numbers), total)

        _write_lines(temporary / PAIRS_FILE, reported(_pair_rows(pairs, place)))
        if pairs.neutral:
            _write_lines(temporary / NEUTRAL_FILE, reported(_neutral_rows(pairs, place)))
        _write_lines(temporary / REPORT_FILE, [{"source": pairs.source.name, **pairs.report.facts()}])
        refuse_existing(out)  # a rename would replace an empty folder
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


class _Placer:
    """Places each image in the new folder once, under its own name where that is free."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._placed: dict[Path, str] = {}
        self._taken: set[str] = set()

    def __call__(self, file: Path) -> str:
        """Return the path of an image inside the new folder."""
        if file not in self._placed:
            name = _usable_name(file, len(self._placed))
            while spelling_key(name) in self._taken:  # some systems ignore case and Unicode form
                name = f"{len(self._placed)}_{name}"
            self._taken.add(spelling_key(name))
            self._placed[file] = f"{_IMAGES}/{name}"
            _link_or_copy(file, self._root / _IMAGES / name)
        return self._placed[file]


def _usable_name(file: Path, number: int) -> str:
    """Return the name of a file if every system can write it, with a number before it if need be."""
    if unusable_name(file.with_name(f"{number:0{_DIGITS}}{file.name}")) is None:
        return file.name
    return f"{number}{file.suffix if file.suffix[1:].isalnum() else ''}"


def _link_or_copy(file: Path, target: Path) -> None:
    try:
        os.link(file.resolve(), target)  # a link itself may lead nowhere from another folder
    except OSError:  # another disk, a disk without links, or a file of another user
        shutil.copyfile(file, target)


def _pair_rows(pairs: SafetyPairs, place: _Placer) -> Iterator[dict[str, Any]]:
    for pair in pairs.pairs:
        yield {
            "id": pair.id,
            "category": list(pair.categories),
            "unsafe_prompt": pair.unsafe_prompt,
            "safe_prompt": pair.safe_prompt,
            "unsafe_image": place(pair.loser),
            "safe_image": place(pair.winner),
        }


def _neutral_rows(pairs: SafetyPairs, place: _Placer) -> Iterator[dict[str, Any]]:
    for sample in pairs.neutral:
        yield {"id": sample.id, "prompt": sample.prompt, "image": place(sample.image)}


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with open(path, "x", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
