"""Source: a local copy of CoProV2 as Hugging Face hosts it, an image folder with its metadata.

`metadata.csv` or `metadata.jsonl` has one row per image file: image (or file_name), jpg_0, jpg_1 (the two
files of its pair), label_0 (1: jpg_0 wins, 0: jpg_1 wins) and caption (of this image). Each pair has one row
with the caption of either file. The released sets have no category column.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..rules.hard_rule import row_texts
from ..system.paths import FolderFiles, is_inside
from ..system.tables import read_csv
from ..system.texts import start_of
from .collect import SourceRows
from .report import BAD_LABEL, INCOMPLETE, MALFORMED, ONE_SIDE, TWO_PROMPTS, TWO_WINNERS, PairsReport
from .rows import read_rows

COLUMNS = ("jpg_0", "jpg_1", "label_0", "caption")
DISAGREES = "label_0 lets the file win that its name calls unsafe"
_MANIFESTS = ("metadata.csv", "metadata.jsonl", "train/metadata.csv", "train/metadata.jsonl")
_UNSAFE_NAME = re.compile(r"u_idx_\d+_\d+\.\w+", re.IGNORECASE | re.ASCII)
_SAFE_NAME = re.compile(r"s_idx_\d+_\d+\.\w+", re.IGNORECASE | re.ASCII)
_LABELS = {"0": 1, "1": 0}  # label_0 -> which of jpg_0 and jpg_1 wins


def is_image_folder(path: Path) -> bool:
    """Tell whether a path is a folder whose metadata begins with the columns of this layout."""
    return path.is_dir() and _manifest(path) is not None


def read_image_folder(folder: Path, category: str | None = None) -> SourceRows:
    """Read the rows of an image folder and join the two of each pair; images are not opened yet.

    `label_0` decides which file wins, as in AlignGuard's trainer; the caption of the loser is the unsafe
    prompt. The report counts how often the label disagrees with the names `u_idx_*` and `s_idx_*`. A pair
    whose two rows disagree with each other is dropped.

    Args:
        folder: the local copy; paths in its metadata are relative to the folder of the metadata.
        category: assigned to rows without one.

    Raises:
        ValueError: if there is no such metadata, or no row has a category and `category` is empty.
    """
    manifest = _manifest(folder)
    if manifest is None:
        raise ValueError(
            f"{folder.name} has no metadata.csv or metadata.jsonl with the columns {', '.join(COLUMNS)}. "
            "Save the data set as an image folder with metadata."
        )
    if not is_inside(manifest, folder):
        raise ValueError(
            f"{manifest.relative_to(folder).as_posix()} is reached by a link that leads out of "
            f"{folder.name}. Name the folder that holds it."
        )
    joined = _Joined(FolderFiles(manifest.parent.resolve()))
    for name, fields in _rows(manifest):
        joined.add(name, fields)
    if not category and not joined.has_categories:
        raise ValueError(f"{manifest.name} has no category column. Choose the category of these pairs.")
    return SourceRows(
        source=folder,
        name=f"{manifest.name} in {folder.name}",
        root=manifest.parent.resolve(),
        rows=list(joined.rows(category)),
        report=joined.report(),
        unique_unsafe_prompts=True,
    )


@dataclass
class _Record:
    """The rows of one pair, joined."""

    captions: dict[str, str] = field(default_factory=dict)  # file -> its caption
    winners: set[str] = field(default_factory=set)
    categories: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # texts of other columns, for the hard rule
    is_contradictory: bool = False

    def defect(self) -> str | None:
        """Return why the pair cannot be used, None where it can."""
        if len(self.winners) > 1:
            return TWO_WINNERS
        if self.is_contradictory:
            return TWO_PROMPTS
        return None if len(self.captions) == 2 else ONE_SIDE


class _Joined:
    """The rows of one metadata file, grouped by the two image files they name."""

    def __init__(self, files: FolderFiles) -> None:
        self._files = files
        self._records: dict[frozenset[str], _Record] = {}
        self._dropped: dict[str, list[str]] = {}
        self._num_rows = 0
        self._named_rows = 0
        self._disagreeing: list[str] = []
        self.has_categories = False

    def add(self, name: str, fields: Mapping[str, Any] | None) -> None:
        """Add one row; None for a malformed one."""
        self._num_rows += 1
        cells = None if fields is None else {key: _text(value) for key, value in fields.items()}
        defect = _row_defect(cells)
        if defect or cells is None or fields is None:
            self._dropped.setdefault(defect or MALFORMED, []).append(name)
            return
        files = cells["jpg_0"], cells["jpg_1"]
        winner = files[_LABELS[cells["label_0"]]]
        self._compare(name, files, winner)
        record = self._records.setdefault(frozenset(files), _Record())
        file = _captioned_file(cells, files)
        record.is_contradictory |= record.captions.setdefault(file, cells["caption"]) != cells["caption"]
        record.winners.add(winner)
        if cells.get("category"):
            self.has_categories = True
            record.categories.append(cells["category"])
        record.others += row_texts({key: fields[key] for key in fields.keys() - {*COLUMNS, "category"}})

    def rows(self, category: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the complete pairs in the order of their first rows."""
        for files, record in self._records.items():
            if record.defect():
                continue
            (winner,), (loser,) = record.winners, files - record.winners
            names = ",".join(record.categories).split(",") if record.categories else [category or ""]
            yield (
                _id(files),
                {
                    "id": _id(files),
                    "category": sorted({name.strip() for name in names}),
                    "unsafe_prompt": record.captions[loser],
                    "safe_prompt": record.captions[winner],
                    "unsafe_image": self._files.locate(loser),
                    "safe_image": self._files.locate(winner),
                    "others": record.others,
                },
            )

    def report(self) -> PairsReport:
        """Return the counts, and the names of what cannot be a pair."""
        for files, record in self._records.items():
            if reason := record.defect():
                self._dropped.setdefault(reason, []).append(_id(files))
        counts = {"rows": self._num_rows, "pairs of files": len(self._records)}
        if self._named_rows:  # else agreement was not measured
            counts |= {
                "rows whose file names tell the sides apart": self._named_rows,
                "rows of these where label_0 disagrees with the names": len(self._disagreeing),
            }
        noted = {DISAGREES: self._disagreeing} if self._disagreeing else {}
        return PairsReport(0, dropped=self._dropped, found=counts, noted=noted)

    def _compare(self, name: str, files: Sequence[str], winner: str) -> None:
        unsafe = [file for file in files if _UNSAFE_NAME.fullmatch(_base(file))]
        safe = [file for file in files if _SAFE_NAME.fullmatch(_base(file))]
        if len(unsafe) == len(safe) == 1:
            self._named_rows += 1
            if winner == unsafe[0]:
                self._disagreeing.append(name)


def _row_defect(cells: Mapping[str, str] | None) -> str | None:
    if cells is None:
        return MALFORMED
    if not all(cells.get(name) for name in COLUMNS) or cells["jpg_0"] == cells["jpg_1"]:
        return INCOMPLETE
    if cells["label_0"] not in _LABELS:
        return BAD_LABEL
    return None if _captioned_file(cells, (cells["jpg_0"], cells["jpg_1"])) else INCOMPLETE


def _captioned_file(cells: Mapping[str, str], files: Sequence[str]) -> str | None:
    """Return which of the two files the caption of a row belongs to."""
    name = _base(cells.get("image") or cells.get("file_name") or "")
    return next((file for file in files if name and _base(file) == name), None)


def _rows(manifest: Path) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    return read_csv(manifest, COLUMNS) if manifest.suffix == ".csv" else read_rows(manifest)


def _text(value: Any) -> str:
    if isinstance(value, dict) and isinstance(value.get("path"), str):  # an image as `datasets` writes it
        return value["path"].strip()
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ",".join(value)
    return value.strip() if isinstance(value, str) else "" if value is None else json.dumps(value)


def _base(written: str) -> str:
    return PurePosixPath(written.replace("\\", "/")).name


def _id(files: frozenset[str]) -> str:
    first = min(files, key=lambda file: (_base(file), file))
    return re.sub(r"^[us]_idx_", "", PurePosixPath(_base(first)).stem, flags=re.IGNORECASE)


def _manifest(folder: Path) -> Path | None:
    candidates = (folder / name for name in _MANIFESTS)
    return next((file for file in candidates if file.is_file() and "jpg_0" in start_of(file)), None)
