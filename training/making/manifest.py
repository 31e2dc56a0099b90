"""The lines of `pairs.jsonl` as they stand in the file, so that a change leaves all other lines as they were.

People edit the manifest by hand, and several processes may change it; hence the lock.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from ..pairs.rows import row_name
from ..system.tables import read_json_rows
from ..system.work_folder import locked, write_whole

ROWS = "rows"  # folder of the rows while pairs are made; the lock is in it


class Line(NamedTuple):
    """A line that is not blank.

    Args:
        name: id of the row, or file and line number if there is no id.
        content: the line in UTF-8, without line end; an entry of a JSON array is one line.
        fields: fields of the row; None if the line is not a JSON object.
    """

    name: str
    content: bytes
    fields: Mapping[str, Any] | None


def read_lines(manifest: Path) -> list[Line]:
    """Return the lines of a manifest; no line if the file does not exist.

    Raises:
        ValueError: see `read_json_rows`.
    """
    if not manifest.is_file():
        return []
    return [Line(row_name(row), row.text.encode(), row.fields) for row in read_json_rows(manifest)]


def write_lines(manifest: Path, lines: Sequence[Line]) -> None:
    """Replace a manifest as a whole, unless it already has these lines."""
    if not manifest.is_file() or read_lines(manifest) != lines:
        write_whole(manifest, b"".join(line.content + b"\n" for line in lines))


def with_rows(
    lines: Sequence[Line], rows: Sequence[Mapping[str, Any]], listed: Collection[str]
) -> list[Line]:
    """Add the rows that were never listed, and sort all lines in the order of the rows.

    Args:
        lines: lines of the manifest. They keep their content; a line without a row goes to the end.
        rows: rows with unique ids.
        listed: ids that were in the manifest before. If such a line is missing, a person removed it.
    """
    present = {line.name for line in lines}.union(listed)
    new = [Line(row["id"], json.dumps(row).encode(), row) for row in rows if row["id"] not in present]
    place = {row["id"]: number for number, row in enumerate(rows)}
    return sorted([*lines, *new], key=lambda line: place.get(line.name, len(place)))


def manifest_lock(folder: Path) -> AbstractContextManager[None]:
    """Let one process at a time change the manifest of a folder in which pairs are made."""
    rows = folder / ROWS
    return locked(rows if rows.is_dir() else None, wait=True)
