"""Source: the layout of CoProV2, a CSV of prompts with the names of images in a folder.

Columns prompt, image, category; images `u_idx_NNNNNNN_0.jpg` (unsafe) and `s_idx_NNNNNNN_0.jpg` (safe). Rows
are paired by that number, never by their order. A pair of several categories has a row for each, so its
categories are a set. Liu et al. 2024, arXiv:2412.10493; defects as counted in the released files.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..rules.categories import CATEGORIES, normalize_categories
from ..rules.hard_rule import row_texts
from ..system.paths import FolderFiles, is_inside
from ..system.tables import read_csv
from ..system.texts import start_of
from .collect import SourceRows
from .report import BAD_NAME, ONE_SIDE, TWO_PROMPTS, PairsReport
from .rows import is_placeholder, prompt_key

COLUMNS = ("prompt", "image", "category")
REPEATED = "an image name stands in several rows, one for each category"
SEVERAL = "the pair carries several categories"
LEAKED = "a test prompt stands in train too"
_IMAGE_NAME = re.compile(r"([us])_idx_(\d{1,12})_(\d{1,6})\.(?:jpe?g|png|webp|bmp)", re.IGNORECASE | re.ASCII)
_SIDES = {"u": "unsafe", "s": "safe"}


def is_coprov2(path: Path) -> bool:
    """Tell whether a path is a CSV that begins with names of paired images."""
    return path.suffix.lower() == ".csv" and "_idx_" in start_of(path)


def read_coprov2(
    file: Path, category: str | None = None, *, images: Path | None = None, test_file: Path | None = None
) -> SourceRows:
    """Read the prompts of CoProV2, each pair once; images are not opened yet.

    Pairs keep all their categories. A pair that lacks a side, or has an image with two different prompts, is
    dropped here. `collect_pairs` drops placeholders, unsafe prompts that occurred before under another
    image, and pairs whose unsafe prompt is a test prompt.

    Args:
        file: the CSV of the pairs.
        category: ignored, because every row states its own.
        images: folder with the images, at any depth; None uses the folder beside the CSV that has its name
            without `.csv`, else `images`, else the folder of the CSV.
        test_file: CSV of the test prompts, same columns; None holds out no prompts.

    Raises:
        ValueError: if a file or the folder is missing, or a file is not such a CSV.
    """
    root = (images or images_beside(file)).resolve()
    if images is None and not is_inside(root, file.parent):
        raise ValueError(
            f"the folder of images beside {file.name} is a link that leads out of {file.parent.name}. "
            "Move the images there, or name their folder."
        )
    if not root.is_dir():
        raise ValueError(f"there is no folder of images {root}. Name the folder that holds u_idx_*.jpg.")
    table = _Table(FolderFiles(root))
    for name, cells in read_csv(file, COLUMNS):
        table.add(name, cells)
    held_out = _TestPrompts(table, test_file)
    report = PairsReport(
        kept=0,
        dropped=table.dropped(),
        found=table.counts() | held_out.counts(),
        noted=table.remarks() | held_out.remarks(),
        per_category=_per_category(table, held_out),
    )
    return SourceRows(
        source=file,
        name=file.name,
        root=root,
        rows=list(table.rows()),
        report=report,
        test_prompts=frozenset(held_out.keys),
        unique_unsafe_prompts=True,
    )


def images_beside(file: Path) -> Path:
    """Return the folder that is searched for the images of a CSV, see `read_coprov2`."""
    beside = (file.with_suffix(""), file.with_name("images"))
    return next((folder for folder in beside if folder.is_dir()), file.parent)


@dataclass
class _Record:
    """One pair: prompt and image of each side, and every category of its rows."""

    fields: dict[str, str] = field(default_factory=dict)
    categories: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)  # texts of other columns, for the hard rule
    is_contradictory: bool = False

    def defect(self) -> str | None:
        """Return why the pair cannot be used, None where it can."""
        if len(self.fields) < 4:
            return ONE_SIDE
        return TWO_PROMPTS if self.is_contradictory else None


class _Table:
    """The rows of one CSV, grouped by the number of the pair."""

    def __init__(self, files: FolderFiles) -> None:
        self._files = files
        self._records: dict[tuple[int, int], _Record] = {}
        self._images: Counter[str] = Counter()
        self._badly_named: list[str] = []
        self._placeholders: Counter[tuple[int, int]] = Counter()
        self._category_rows: Counter[str] = Counter()

    def add(self, name: str, cells: dict[str, str]) -> None:
        """Add one row."""
        prompt, image = cells["prompt"], cells["image"]
        self._images[image] += 1
        categories = normalize_categories(cells["category"])
        self._category_rows.update(categories)
        match = _IMAGE_NAME.fullmatch(PurePosixPath(image.replace("\\", "/")).name)
        if match is None:
            self._badly_named.append(name)
            return
        key = int(match[2]), int(match[3])
        self._placeholders[key] += is_placeholder(prompt)
        record = self._records.setdefault(key, _Record())
        side = _SIDES[match[1].lower()]
        first_prompt = record.fields.setdefault(f"{side}_prompt", prompt)
        record.fields.setdefault(f"{side}_image", self._files.locate(image))
        record.is_contradictory |= first_prompt != prompt
        record.categories.update(categories)
        record.others.update(row_texts({column: cells[column] for column in cells.keys() - set(COLUMNS)}))

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the complete pairs in the order of their first rows."""
        for key, record in self._records.items():
            if not record.defect():
                fields = record.fields | {"category": sorted(record.categories), "others": [*record.others]}
                yield _id(key), {"id": _id(key), **fields}

    def dropped(self) -> dict[str, list[str]]:
        """Return the names of what cannot be a pair, by reason."""
        dropped = {BAD_NAME: self._badly_named} if self._badly_named else {}
        for key, record in self._records.items():
            if reason := record.defect():
                dropped.setdefault(reason, []).append(_id(key))
        return dropped

    def counts(self) -> dict[str, int]:
        """Count the contents of the file, before anything is dropped."""
        unsafe = self.unsafe_prompts()
        return {
            "rows": self._images.total(),
            "pair ids": len(self._records),
            "image names in several rows": sum(count > 1 for count in self._images.values()),
            "placeholder rows": self._placeholders.total(),
            "pair ids with a placeholder": len(+self._placeholders),
            "pair ids that repeat an unsafe prompt": len(unsafe) - len(set(unsafe)),
        }

    def remarks(self) -> dict[str, list[str]]:
        """Return the names of irregular rows and pairs that are used all the same."""
        several = [_id(key) for key, record in self._records.items() if len(record.categories) > 1]
        repeated = [name for name, count in self._images.items() if count > 1]
        return {reason: names for reason, names in ((REPEATED, repeated), (SEVERAL, several)) if names}

    def unsafe_prompts(self) -> list[str]:
        """Return the key of the unsafe prompt of each pair that has one."""
        texts = (record.fields.get("unsafe_prompt") for record in self._records.values())
        return [prompt_key(text) for text in texts if text]

    def category_counts(self) -> dict[str, Counter[str]]:
        """Count, per category, its rows, the pairs that carry it, and those that carry nothing else."""
        sets = [record.categories for record in self._records.values()]
        return {
            "rows": self._category_rows,
            "pairs": Counter(name for names in sets for name in names),
            "pairs of it alone": Counter(name for names in sets if len(names) == 1 for name in names),
        }


class _TestPrompts:
    """The prompts held out for tests, and those among them that are also trained on."""

    def __init__(self, table: _Table, file: Path | None) -> None:
        rows = [cells for _, cells in read_csv(file, COLUMNS)] if file else []
        self.keys = [prompt_key(cells["prompt"]) for cells in rows if cells["prompt"]]
        trained = set(table.unsafe_prompts())
        self._leaked = [cells["image"] for cells in rows if prompt_key(cells["prompt"]) in trained]
        self.category_rows = Counter(
            name for cells in rows for name in normalize_categories(cells["category"])
        )
        self._has_file = file is not None
        self._num_rows = len(rows)

    def counts(self) -> dict[str, int]:
        """Count the test rows; empty without a test file."""
        counts = {"test rows": self._num_rows, "test rows also in train": len(self._leaked)}
        return counts if self._has_file else {}

    def remarks(self) -> dict[str, list[str]]:
        """Return the names of test rows that also occur in the training file."""
        return {LEAKED: self._leaked} if self._leaked else {}


def _id(key: tuple[int, int]) -> str:
    number, copy = key
    return f"{number:07d}" + (f"_{copy}" if copy else "")


def _per_category(table: _Table, test: _TestPrompts) -> dict[str, dict[str, int]]:
    counts = table.category_counts() | ({"test rows": test.category_rows} if test.category_rows else {})
    names = sorted(
        {name for counter in counts.values() for name in counter},
        key=lambda name: (CATEGORIES.index(name) if name in CATEGORIES else len(CATEGORIES), name),
    )
    return {name: {what: counter[name] for what, counter in counts.items()} for name in names}
