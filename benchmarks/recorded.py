"""Figures that outlive the machine: one line for each row and seed, in a file of the repository.

A table that takes longer than one sitting is measured in parts. Each line says when it was measured, so a
reader can tell which code it is of; measuring a row again replaces its line.
"""

import csv
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import dev

FOLDER = dev.ROOT / "docs" / "figures"
KEYS = ("row", "seed", "measured")
DIGITS = 4
Figures = dict[tuple[str, int], dict[str, float]]  # (row, seed) -> column -> figure


def read(path: Path) -> Figures:
    """Return the figures of a file by row and seed; a file that is missing holds none."""
    return {key: figures for key, (_, figures) in _read(path).items()}


def write(path: Path, measured: Mapping[tuple[str, int], Mapping[str, float]], order: Sequence[str]) -> None:
    """Write figures into a file, atomically; figures of other rows and seeds stay.

    Args:
        path: CSV file, created if it is missing.
        measured: (row, seed) -> column -> figure; all have the same columns.
        order: names of rows in the order of the table; others follow.
    """
    today = time.strftime("%Y-%m-%d")
    lines = _read(path) | {key: (today, dict(figures)) for key, figures in measured.items()}
    place = {row: number for number, row in enumerate(order)}
    keys = sorted(lines, key=lambda key: (place.get(key[0], len(place)), *key))
    columns = list(dict.fromkeys(column for _, figures in lines.values() for column in figures))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*KEYS, *columns], lineterminator="\n")
        writer.writeheader()
        for row, seed in keys:
            day, figures = lines[row, seed]
            shown = {column: round(figure, DIGITS) for column, figure in figures.items()}
            writer.writerow({"row": row, "seed": seed, "measured": day, **shown})
    os.replace(temporary, path)


def by_row(figures: Figures, rows: Iterable[str]) -> dict[str, list[dict[str, float]]]:
    """Return row -> its figures for each seed that was measured; rows without any are left out."""
    found = {row: [of_seed for (name, _), of_seed in figures.items() if name == row] for row in rows}
    return {row: of_seeds for row, of_seeds in found.items() if of_seeds}


def _read(path: Path) -> dict[tuple[str, int], tuple[str, dict[str, float]]]:
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    return {
        (line["row"], int(line["seed"])): (
            line["measured"],
            {name: float(value) for name, value in line.items() if name not in KEYS and value},
        )
        for line in lines
    }
