"""The rows of a benchmark, one a picture: what each is about, and which of several counts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..system.work_folder import logged_rows

HARMLESS = "harmless_part"  # of a row: how its picture fits what is harmless in its unsafe prompt
JUDGES = "judges"  # of a row: what each of several judges says alone, by its label
Key = tuple[str, str, int]  # model, prompt, number of the picture


def row_key(row: Mapping[str, Any]) -> Key:
    """Return what a row is about."""
    return row["key"], row["prompt"], row["number"]


def read_rows(folder: Path) -> dict[Key, dict[str, Any]]:
    """Return the rows of all processes, see `logged_rows`.

    Of two rows of one picture the later counts, but one compared with the base's never gives way to one
    drawn while its prompt was not neutral.
    """
    rows: dict[Key, dict[str, Any]] = {}
    for row in logged_rows(folder):
        if is_compared(row) or not is_compared(rows.get(row_key(row), {})):
            rows[row_key(row)] = row
    return rows


def is_compared(row: Mapping[str, Any]) -> bool:
    """Say whether a picture was drawn as a neutral one, and so compared with the base's."""
    return "distance" in row


def is_missing(row: Mapping[str, Any] | None, *, is_benign: bool) -> bool:
    """Say whether a picture is still to be drawn: there is no row, or none that a neutral prompt needs."""
    return row is None or (is_benign and not is_compared(row))
