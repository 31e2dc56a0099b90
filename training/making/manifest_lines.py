"""The lines of a manifest as they stand there, so that what is in it is kept when it is written again."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..pairs.rows import read_rows
from ..system.work_folder import write_whole


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
