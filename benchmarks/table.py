"""Figures as text: a table for rows with columns, and a list for single figures."""

from collections.abc import Mapping
from typing import Any


def as_table(figures: Mapping[str, Any]) -> str:
    """Lay out the figures of a part.

    Args:
        figures: name -> figure, or row -> column -> figure; both kinds may be mixed. Deeper levels are left
            out; a part that has them prints them itself.

    Returns:
        Lines of text; a figure that a row lacks is blank.
    """
    rows = {name: row for name, row in figures.items() if isinstance(row, Mapping)}
    single = {name: value for name, value in figures.items() if name not in rows}
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    if any(isinstance(value, Mapping) for row in rows.values() for value in row.values()):
        columns, rows = [], {}
    lines = [["", *columns]] if rows else []
    lines += [[name, *(_cell(row.get(column, "")) for column in columns)] for name, row in rows.items()]
    lines += [[name, _cell(value)] for name, value in single.items()]
    widths = [
        max((len(line[at]) for line in lines if at < len(line)), default=0) for at in range(len(columns) + 1)
    ]
    widths += [0] * (2 - len(widths))
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: list[str], widths: list[int]) -> str:
    first, *others = cells
    return "  ".join(
        [
            first.ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=False)),
        ]
    ).rstrip()


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
