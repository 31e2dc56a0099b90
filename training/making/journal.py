"""A folder of pairs while it is made: every finished row is on disk, whole, before the next begins."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from ..pairs.folder import PAIRS_FILE
from ..pairs.report import reason_lines
from ..pairs.rows import read_rows
from ..system.work_folder import claim, locked, unfinished, write_whole


class Line(NamedTuple):
    """One line that is not blank.

    Args:
        name: the row's id, else file and line.
        content: as it stands there.
        fields: of the row; None if it is no JSON object.
    """

    name: str
    content: bytes
    fields: Mapping[str, Any] | None


def read_lines(manifest: Path) -> list[Line]:
    """Return the lines of a manifest, none if there is no such file."""
    if not manifest.is_file():
        return []
    content = manifest.read_bytes().removeprefix(b"\xef\xbb\xbf")
    lines = [line for line in content.split(b"\n") if line.strip()]
    return [Line(name, line, fields) for line, (name, fields) in zip(lines, read_rows(manifest), strict=True)]


def write_lines(manifest: Path, lines: Sequence[Line]) -> None:
    """Write a manifest whole, unless it holds these lines already."""
    if not manifest.is_file() or read_lines(manifest) != lines:
        write_whole(manifest, b"".join(line.content + b"\n" for line in lines))


def with_rows(
    lines: Sequence[Line], rows: Sequence[Mapping[str, Any]], listed: Collection[str]
) -> list[Line]:
    """Return the lines with the rows that have never been among them, in the order of the rows.

    Args:
        lines: of the manifest; they stay as they are, those of no row at the end.
        rows: with unique ids.
        listed: ids that were in the manifest before: one that is gone was taken out by hand.
    """
    known = {line.name for line in lines}.union(listed)
    new = [Line(row["id"], json.dumps(row).encode(), row) for row in rows if row["id"] not in known]
    place = {row["id"]: number for number, row in enumerate(rows)}
    return sorted([*lines, *new], key=lambda line: place.get(line.name, len(place)))


ROWS, SETTINGS = "rows", "making.json"
LISTED = "listed.json"  # ids that have been in the manifest
SIDES = ("unsafe", "safe")
TAKEN_OUT = "taken out of pairs.jsonl by hand"


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
    """The rows of a pairs folder, one file each below `rows/`, and the manifest they are listed in.

    What a person or `weigh_pairs` writes into the manifest stays: a line changes only by their hand, and
    one they take out does not come back.

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
        listed = self._listed()  # before the manifest, to which another process may be adding
        self._taken_out = listed.difference(line.name for line in read_lines(folder / PAIRS_FILE))

    def is_done(self, name: str) -> bool:
        """Say whether a row needs no drawing: it is finished with its pictures, or was taken out by hand."""
        return name in self._taken_out or self._is_whole(self._read(name))

    def write(self, name: str, row: Mapping[str, Any], pictures: Mapping[str, Image.Image]) -> None:
        """Finish a row: its pictures (file name -> picture) first, so that a row never lacks one."""
        for file, picture in pictures.items():
            temporary = unfinished(self.folder / file)
            picture.save(temporary, format="PNG")  # pixels only: no prompt goes into the file
            os.replace(temporary, self.folder / file)
        write_whole(self._file(name), json.dumps(row).encode())

    def finish(self, names: Sequence[str]) -> MakingReport:
        """List the finished rows among these in `pairs.jsonl`, and count them; rows of others leave it."""
        with manifest_lock(self.folder):
            rows = [self._read(name) for name in names]
            made = [row for row in rows if row and "rejected" not in row]
            lines = self._list(made, set(names))
        rejected: dict[str, list[str]] = {}
        for row in rows:
            if row and "rejected" in row:
                rejected.setdefault(row["rejected"], []).append(row["id"])
        fields = {line.name: line.fields or {} for line in lines}
        if taken_out := [row["id"] for row in made if row["id"] not in fields]:
            rejected[TAKEN_OUT] = taken_out
        whole = [fields[row["id"]] for row in made if row["id"] in fields and self._is_whole(row)]
        return MakingReport(
            made=len(whole),
            rejected=rejected,
            unmeasured=sum(is_unmeasured(row) for row in whole),
            missing=len(names) - len(whole) - sum(map(len, rejected.values())),
        )

    def sweep(self, names: Iterable[str]) -> None:
        """Remove what a killed process left unfinished of these rows."""
        stems = {stem_of(name) for name in names}
        for file in [*self.folder.glob(".*.tmp"), *(self.folder / ROWS).glob(".*.tmp")]:
            if not stems.isdisjoint(re.split(r"[._]", file.name)):
                file.unlink(missing_ok=True)

    def _list(self, made: Sequence[Mapping[str, Any]], names: Collection[str]) -> list[Line]:
        """Bring the manifest up to date, and return its lines; nobody else may be at it."""
        manifest, listed = self.folder / PAIRS_FILE, self._listed()
        for torn in [*self.folder.glob(f".{PAIRS_FILE}.*"), *(self.folder / ROWS).glob(f".{LISTED}.*")]:
            torn.unlink()  # of a killed process: who writes such a file holds the lock
        lines = read_lines(manifest)
        for line in lines.copy():
            if line.name not in names and self._file(line.name).exists():
                write_whole(self._file(line.name), line.content)  # with its scores, for when it is back
                lines.remove(line)
                listed.discard(line.name)
        lines = with_rows(lines, made, listed)
        write_lines(manifest, lines)
        listed.update(row["id"] for row in made)
        write_whole(self.folder / ROWS / LISTED, json.dumps(sorted(listed)).encode())
        return lines

    def _listed(self) -> set[str]:
        file = self.folder / ROWS / LISTED
        is_there = file.is_file() and (self.folder / PAIRS_FILE).is_file()
        return set(json.loads(file.read_bytes())) if is_there else set()

    def _read(self, name: str) -> dict[str, Any] | None:
        """Return a finished row, None if there is none yet."""
        try:
            return json.loads(self._file(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def _is_whole(self, row: Mapping[str, Any] | None) -> bool:
        if row is None or "rejected" in row:
            return row is not None
        return all((self.folder / file_name(row["id"], side)).is_file() for side in SIDES)

    def _file(self, name: str) -> Path:
        return self.folder / ROWS / f"{stem_of(name)}.json"


def manifest_lock(folder: Path) -> AbstractContextManager[None]:
    """Let one process at a time change the manifest of a folder that pairs are made in."""
    rows = folder / ROWS
    return locked(rows if rows.is_dir() else None, wait=True)


def stem_of(name: str) -> str:
    """Return the part of file names that stands for a row's id, which may hold any character."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def file_name(name: str, side: str) -> str:
    """Return the file of a row's picture, its side out of `SIDES`."""
    return f"{side[0]}_{stem_of(name)}.png"


def is_unmeasured(row: Mapping[str, Any]) -> bool:
    """Say whether a row was judged, but by nobody who sees its category."""
    made = row.get("made")
    return isinstance(made, Mapping) and made.get("judge") is not None and "scores" not in row
