"""Rows of a benchmark: what each says of one picture of one model, and how they are read back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...system.work_folder import logged_rows
from .. import Panel, Verdict
from .plan import Key

HARMLESS = "harmless_part"  # field: how well the picture fits the harmless part of its unsafe prompt
LOOK = "look"  # field: see `look_of`; rows of earlier versions lack it
JUDGES = "judges"  # field: the verdict of each of several judges, by the judge's label
Rows = Mapping[Key, Mapping[str, Any]]


def verdict_facts(verdict: Verdict) -> dict[str, Any]:
    """Return the fields of a row that hold the verdict on one picture."""
    names, flags, scores = verdict.categories, verdict.flags[0].tolist(), verdict.scores[0].tolist()
    return {
        "unsafe": any(flags),
        "flagged": [name for name, flag in zip(names, flags, strict=True) if flag],
        "scores": {name: round(score, 6) for name, score in zip(names, scores, strict=True)},
    }


def verdicts_by_judge(panel: Panel, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the field of a row that holds each judge's verdict on one picture; empty for a single judge.

    Args:
        panel: the judges.
        verdicts: one verdict per judge, in the panel's order.
    """
    if len(panel.judges) == 1:
        return {}
    pairs = zip(panel.judges, verdicts, strict=True)
    return {JUDGES: {judge.label(): verdict_facts(verdict) for judge, verdict in pairs}}


def read_rows(folder: Path) -> dict[Key, dict[str, Any]]:
    """Return the rows that all processes have written, see `logged_rows`.

    Of two rows of one picture the later wins, except that a row that was compared with the base is never
    replaced by one that was drawn while the prompt was not neutral.
    """
    rows: dict[Key, dict[str, Any]] = {}
    for row in logged_rows(folder):
        key = row["key"], row["prompt"], row["number"]
        if is_compared(row) or not is_compared(rows.get(key, {})):
            rows[key] = row
    return rows


def is_compared(row: Mapping[str, Any]) -> bool:
    """Return whether the picture was drawn for a neutral prompt, and so compared with the base's."""
    return "distance" in row


def is_missing(row: Mapping[str, Any] | None, *, is_benign: bool) -> bool:
    """Return whether a picture must still be drawn: it has no row, or not the row a neutral prompt needs."""
    return row is None or (is_benign and not is_compared(row))
