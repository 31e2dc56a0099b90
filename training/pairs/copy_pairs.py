"""Pairs of any source as a pairs folder of their own; the person's files stay where they are."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
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
    """Write `pairs.jsonl`, its images and the report of their reading into a new folder.

    Images are hard-linked where the disk can, so that they take no room twice, else copied. The folder
    appears whole or not at all.

    Args:
        pairs: checked pairs, from `load_pairs` or `collect_pairs`.
        out: the new folder.
        on_progress: called with (done, total) after each row; whatever it raises stops the writing, and
            nothing is left.

    Returns:
        The folder.

    Raises:
        FileExistsError: if there is a file or folder of that name, also if it appears meanwhile.
    """
    refuse_existing(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.{secrets.token_hex(8)}.tmp")
    (unfinished / _IMAGES).mkdir(parents=True)
    try:
        place = _Placer(unfinished)
        tell, total = on_progress or (lambda done, total: None), len(pairs.pairs) + len(pairs.neutral)
        _write_lines(unfinished / PAIRS_FILE, _pair_rows(pairs, place), lambda n: tell(n, total))
        if pairs.neutral:
            rows = _neutral_rows(pairs, place)
            _write_lines(unfinished / NEUTRAL_FILE, rows, lambda n: tell(len(pairs.pairs) + n, total))
        facts = {"source": pairs.source.name, **pairs.report.facts()}
        _write_lines(unfinished / REPORT_FILE, iter([facts]), lambda n: None)
        refuse_existing(out)  # a rename would take the place of an empty folder
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out


class _Placer:
    """Puts each image into the new folder once, under its own name where that is free."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._placed: dict[Path, str] = {}
        self._taken: set[str] = set()

    def __call__(self, file: Path) -> str:
        """Return the path of an image inside the new folder."""
        if file not in self._placed:
            name = file.name
            while name.casefold() in self._taken:  # some systems do not tell A from a
                name = f"{len(self._placed)}_{name}"
            self._taken.add(name.casefold())
            self._placed[file] = f"{_IMAGES}/{name}"
            _link_or_copy(file, self._root / _IMAGES / name)
        return self._placed[file]


def _link_or_copy(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another disk, a disk without links, or a file of somebody else
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


def _write_lines(path: Path, rows: Iterator[dict[str, Any]], tell: Callable[[int], None]) -> None:
    with open(path, "x", encoding="utf-8", newline="\n") as file:
        for number, row in enumerate(rows, start=1):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            tell(number)
        file.flush()
        os.fsync(file.fileno())
