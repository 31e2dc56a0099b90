"""A folder of pairs while it is made: every finished row is on disk, whole, before the next begins."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..claimed_folder import claim, unfinished, write_whole
from ..data.folder import PAIRS_FILE
from ..data.pairs_report import reason_lines

ROWS, SETTINGS = "rows", "making.json"


@dataclass(frozen=True)
class MakingReport:
    """What became of the pairs that were asked for.

    Attributes:
        made: pairs in the folder.
        rejected: reason -> ids of pairs given up after all attempts.
        unmeasured: pairs kept although no judge sees their category.
        missing: pairs not drawn yet: another process draws them, or the run was stopped.
        dropped: reason -> lines of the prompts that were not used.
    """

    made: int
    rejected: dict[str, list[str]] = field(default_factory=dict)
    unmeasured: int = 0
    missing: int = 0
    dropped: dict[str, list[str]] = field(default_factory=dict)

    def text(self) -> str:
        """Return the report for people."""
        counts = [f"{self.made} pairs made", f"{sum(map(len, self.rejected.values()))} given up"]
        if self.unmeasured:
            counts.append(f"{self.unmeasured} not measured by any judge")
        if self.missing:
            counts.append(f"{self.missing} not drawn yet")
        return "\n".join([f"{', '.join(counts)}.", *reason_lines(self.rejected), *reason_lines(self.dropped)])


class Journal:
    """The rows of a pairs folder, one file each below `rows/`, and the manifest put together from them.

    Args:
        folder: of the pairs; made if needed.
        settings: what the rows are made with; plain values.

    Raises:
        ValueError: if the folder holds something else, or rows made with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        claim(folder, settings, file=SETTINGS, holds="pairs")
        (folder / ROWS).mkdir(exist_ok=True)

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a finished row, None if there is none yet."""
        try:
            return json.loads(self._file(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def write(self, name: str, row: Mapping[str, Any], pictures: Mapping[str, Image.Image]) -> None:
        """Finish a row: its pictures (file name -> picture) first, so that a row never lacks one."""
        for file, picture in pictures.items():
            temporary = unfinished(self.folder / file)
            picture.save(temporary, format="PNG")  # pixels only: no prompt goes into the file
            os.replace(temporary, self.folder / file)
        write_whole(self._file(name), json.dumps(row).encode())

    def finish(self, names: Sequence[str]) -> MakingReport:
        """Write `pairs.jsonl` from the finished rows among these, in this order, and count them."""
        rows = self._write_manifest(names)
        made = [row for row in rows if row and "rejected" not in row]
        rejected: dict[str, list[str]] = {}
        for row in rows:
            if row and "rejected" in row:
                rejected.setdefault(row["rejected"], []).append(row["id"])
        return MakingReport(
            made=len(made),
            rejected=rejected,
            unmeasured=sum(row["made"]["judge"] is not None and "scores" not in row for row in made),
            missing=rows.count(None),
        )

    def sweep(self, names: Iterable[str]) -> None:
        """Remove what a killed process left unfinished of these rows."""
        stems = {stem_of(name) for name in names}
        for file in [*self.folder.glob(".*.tmp"), *(self.folder / ROWS).glob(".*.tmp")]:
            if not stems.isdisjoint(re.split(r"[._]", file.name)):
                file.unlink(missing_ok=True)

    def _write_manifest(self, names: Sequence[str]) -> list[dict[str, Any] | None]:
        """Write the manifest until no other process finished a row meanwhile; return the rows in it."""
        rows: list[dict[str, Any] | None] = []
        while not rows or rows.count(None) > [self.read(name) for name in names].count(None):
            rows = [self.read(name) for name in names]
            lines = (json.dumps(row) for row in rows if row and "rejected" not in row)
            write_whole(self.folder / PAIRS_FILE, "".join(f"{line}\n" for line in lines).encode())
        return rows

    def _file(self, name: str) -> Path:
        return self.folder / ROWS / f"{stem_of(name)}.json"


def stem_of(name: str) -> str:
    """Return the part of file names that stands for a row's id, which may hold any character."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]
