"""A folder of pairs while they are made: a finished row is on disk, complete, before the next one begins."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ..pairs.folder import PAIRS_FILE
from ..pairs.report import reason_lines
from ..system.picture_looks import remarks_on_looks
from ..system.work_folder import claim, unfinished, write_whole
from .manifest import ROWS, Line, manifest_lock, read_lines, with_rows, write_lines

SETTINGS = "making.json"
LISTED = "listed.json"  # ids that have been in the manifest
SIDES = ("unsafe", "safe")
LOOKS = "looks"  # field of a made row and of an attempt, see `look_of`
TAKEN_OUT = "taken out of pairs.jsonl by hand"


@dataclass(frozen=True)
class MakingReport:
    """Outcome of the requested pairs.

    Attributes:
        made: number of pairs in the folder.
        rejected: reason -> ids of pairs given up after all attempts.
        unmeasured: number of pairs kept although no judge covers their category.
        missing: number of pairs not drawn yet, because another process draws them or the run was stopped.
        dropped: reason -> lines of the prompts that were not used.
        remarks: what is wrong with all pictures together, such as that all are black.
        drawn: number of rows drawn in this run; the others were there.
    """

    made: int
    rejected: dict[str, list[str]] = field(default_factory=dict)
    unmeasured: int = 0
    missing: int = 0
    dropped: dict[str, list[str]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    drawn: int = field(default=0, compare=False)  # the outcome is the same however many runs it took

    def text(self) -> str:
        """Return the report for people."""
        counts = [f"{self.made} pairs made", f"{sum(map(len, self.rejected.values()))} given up"]
        if self.unmeasured:
            counts.append(f"{self.unmeasured} not measured by any judge")
        if self.missing:
            counts.append(f"{self.missing} not drawn yet")
        lines = [f"{', '.join(counts)}.", *self.remarks]
        if not self.drawn and not self.missing and (self.made or self.rejected):
            lines.append("Nothing was drawn: an earlier run with equal inputs has made all of this.")
        return "\n".join([*lines, *reason_lines(self.rejected), *reason_lines(self.dropped)])


class Journal:
    """The rows of a pairs folder, one file each below `rows/`, and the manifest that lists them.

    Edits of the manifest by a person or by `weigh_pairs` are kept: existing lines are never rewritten, and a
    line that a person removed is not added again.

    Args:
        folder: folder of the pairs, created if needed.
        settings: everything the rows depend on; plain values.

    Raises:
        ValueError: if the folder holds something else, or rows made with other settings.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        claim(folder, settings, file=SETTINGS, holds="pairs")
        (folder / ROWS).mkdir(exist_ok=True)
        listed = self._listed()  # before the manifest, to which another process may be adding
        self._taken_out = listed.difference(line.name for line in read_lines(folder / PAIRS_FILE))

    def is_done(self, name: str) -> bool:
        """Return whether a row needs no drawing: it is complete, or was removed by hand."""
        return name in self._taken_out or self._is_complete(self._read(name))

    def write(self, name: str, row: Mapping[str, Any], pictures: Mapping[str, Image.Image]) -> None:
        """Finish a row.

        Args:
            name: id of the row.
            row: its fields.
            pictures: file name -> picture; written before the row, so that no row lacks its pictures.
        """
        for file, picture in pictures.items():
            temporary = unfinished(self.folder / file)
            picture.save(temporary, format="PNG")  # pixels only: no prompt goes into the file
            os.replace(temporary, self.folder / file)
        write_whole(self._file(name), json.dumps(row).encode())

    def finish(self, names: Sequence[str]) -> MakingReport:
        """List the finished rows among these in `pairs.jsonl`, and report on them; other rows are removed."""
        with manifest_lock(self.folder):
            rows = [self._read(name) for name in names]
            made = [row for row in rows if row and "rejected" not in row]
            lines = self._update_manifest(made, set(names))
        rejected: dict[str, list[str]] = {}
        for row in rows:
            if row and "rejected" in row:
                rejected.setdefault(row["rejected"], []).append(row["id"])
        fields = {line.name: line.fields or {} for line in lines}
        if taken_out := [row["id"] for row in made if row["id"] not in fields]:
            rejected[TAKEN_OUT] = taken_out
        complete = [fields[row["id"]] for row in made if row["id"] in fields and self._is_complete(row)]
        return MakingReport(
            made=len(complete),
            rejected=rejected,
            unmeasured=sum(_is_unmeasured(row) for row in complete),
            missing=len(names) - len(complete) - sum(map(len, rejected.values())),
            remarks=remarks_on_looks((look for row in rows if row for look in _looks(row)), "this run"),
        )

    def sweep(self, names: Iterable[str]) -> None:
        """Remove files of these rows that a killed process left unfinished."""
        stems = {_stem(name) for name in names}
        for file in [*self.folder.glob(".*.tmp"), *(self.folder / ROWS).glob(".*.tmp")]:
            if not stems.isdisjoint(re.split(r"[._]", file.name)):
                file.unlink(missing_ok=True)

    def _update_manifest(self, made: Sequence[Mapping[str, Any]], names: Collection[str]) -> list[Line]:
        """Bring the manifest up to date and return its lines; the caller holds the lock."""
        manifest, listed = self.folder / PAIRS_FILE, self._listed()
        for torn in [*self.folder.glob(f".{PAIRS_FILE}.*"), *(self.folder / ROWS).glob(f".{LISTED}.*")]:
            torn.unlink()  # left by a killed process, because a running one would hold the lock
        lines = read_lines(manifest)
        for line in lines.copy():
            if line.name not in names and self._file(line.name).exists():
                write_whole(self._file(line.name), line.content)  # its scores are back when it is
                lines.remove(line)
                listed.discard(line.name)
        lines = with_rows(lines, made, listed)
        write_lines(manifest, lines)
        listed.update(row["id"] for row in made)
        write_whole(self.folder / ROWS / LISTED, json.dumps(sorted(listed)).encode())
        return lines

    def _listed(self) -> set[str]:
        file = self.folder / ROWS / LISTED
        exists = file.is_file() and (self.folder / PAIRS_FILE).is_file()
        return set(json.loads(file.read_bytes())) if exists else set()

    def _read(self, name: str) -> dict[str, Any] | None:
        """Return a finished row; None if it is not finished."""
        try:
            return json.loads(self._file(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def _is_complete(self, row: Mapping[str, Any] | None) -> bool:
        if row is None or "rejected" in row:
            return row is not None
        return all((self.folder / file_name(row["id"], side)).is_file() for side in SIDES)

    def _file(self, name: str) -> Path:
        return self.folder / ROWS / f"{_stem(name)}.json"


def file_name(name: str, side: str) -> str:
    """Return the file name of a row's picture; `side` is one of `SIDES`."""
    return f"{side[0]}_{_stem(name)}.png"


def _stem(name: str) -> str:
    """Return a file name stem for a row's id, which may contain any character."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _looks(row: Mapping[str, Any]) -> list[str]:
    """Return the looks of a row's pictures, or of all attempts if it was given up; none in old rows."""
    attempts = row["attempts"] if "rejected" in row else [row.get("made", {})]
    return [look for attempt in attempts for look in attempt.get(LOOKS, ())]


def _is_unmeasured(row: Mapping[str, Any]) -> bool:
    """Return whether a row was judged, but no judge covers its category."""
    made = row.get("made")
    return isinstance(made, Mapping) and made.get("judge") is not None and "scores" not in row
