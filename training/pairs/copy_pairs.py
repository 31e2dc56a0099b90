"""Copy the pairs of any source into a new pairs folder; the original files stay where they are."""

import itertools
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ..system.tensors import refuse_existing
from .folder import NEUTRAL_FILE, PAIRS_FILE
from .pair import SafetyPairs

REPORT_FILE = "import_report.json"
_IMAGES = "images"


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
    unfinished = out.with_name(f".{out.name}.{secrets.token_hex(8)}.tmp")
    (unfinished / _IMAGES).mkdir(parents=True)
    try:
        place = _Placer(unfinished)
        progress, total = on_progress or (lambda done, total: None), len(pairs.pairs) + len(pairs.neutral)
        numbers = itertools.count(1)

        def reported(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
            for row in rows:
                yield row
                progress(next(numbers), total)

        _write_lines(unfinished / PAIRS_FILE, reported(_pair_rows(pairs, place)))
        if pairs.neutral:
            _write_lines(unfinished / NEUTRAL_FILE, reported(_neutral_rows(pairs, place)))
        _write_lines(unfinished / REPORT_FILE, [{"source": pairs.source.name, **pairs.report.facts()}])
        refuse_existing(out)  # a rename would replace an empty folder
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
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
            name = file.name
            while name.casefold() in self._taken:  # some systems ignore case
                name = f"{len(self._placed)}_{name}"
            self._taken.add(name.casefold())
            self._placed[file] = f"{_IMAGES}/{name}"
            _link_or_copy(file, self._root / _IMAGES / name)
        return self._placed[file]


def _link_or_copy(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
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
