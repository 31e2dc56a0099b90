"""Text files, CSV tables and JSON rows, all in UTF-8, read strictly: nothing is guessed or skipped."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

START_BYTES = 4096  # enough of a file to recognise its layout
_COLUMN = re.compile(r"[\w-]{1,24}")


def start_of(path: Path) -> bytes:
    """Return the first bytes of a file, or none if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(START_BYTES)
    except OSError:
        return b""


def read_csv(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the name and the cells of each row, stripped; a missing cell is empty.

    The name of a row is file and line, such as `train.csv line 3`. Names of columns are stripped and in lower
    case, so that `Title, Author` is `title,author`, and `ageYears` becomes `age_years`. Cells beyond the
    header are joined under the name `""`, so that a check of all cells misses none.

    Args:
        path: the file, with or without a byte order mark.
        columns: names that the header must have.

    Raises:
        ValueError: if the file is missing, is not CSV in UTF-8, lacks a column, or has one twice.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} does not exist in {path.parent}, or is not a file. Name a CSV file.")
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restkey="", restval="")
        try:
            reader.fieldnames = [_column(name) for name in reader.fieldnames or ()]
            missing = [name for name in columns if name not in reader.fieldnames]
            if missing:
                raise ValueError(
                    f"{path.name} has no column {', '.join(missing)}; its first line must be "
                    f"{','.join(columns)}. It has {named_columns(reader.fieldnames)}."
                )
            twice = [name for name, count in Counter(reader.fieldnames).items() if count > 1]
            if twice:  # only one of them would be read
                raise ValueError(f"{path.name} has the column {twice[0]!r} twice. Rename or remove one.")
            for row in reader:
                yield f"{path.name} line {reader.line_num}", {name: _text(row[name]) for name in row}
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path.name} cannot be read as CSV in UTF-8, near line {reader.line_num} "
                f"({type(error).__name__}). Save it as CSV, UTF-8, with quotes around cells that hold commas."
            ) from error


def _column(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip()).casefold()


def named_columns(names: Iterable[str]) -> str:
    """Return a description, for people, of the columns that a table has.

    The header of a file may in truth be its first row, so only single words are shown, never a sentence.
    """
    present = [name for name in names if name]
    text = "".join(present)
    for separator, mark in (("semicolons", ";"), ("tabs", "\t")):
        if mark in text:
            return f"columns separated by {separator}; save the file with commas"
    words = [name for name in present if _COLUMN.fullmatch(name)]
    others = [f"{len(present) - len(words)} that are not single words"] if len(words) < len(present) else []
    return f"the columns {', '.join(words + others)}" if present else "no named column"


def _text(cell: str | list[str]) -> str:
    return (cell if isinstance(cell, str) else " ".join(cell)).strip()


def parse_row(line: str | bytes) -> dict[str, Any] | None:
    """Return the fields of a line, or None if it is not a JSON object that `parse_json` accepts."""
    try:
        fields = parse_json(line.decode("utf-8") if isinstance(line, bytes) else line)
    except (ValueError, RecursionError):  # ValueError: bad UTF-8, too
        return None
    return fields if isinstance(fields, dict) else None


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: if it is not JSON; if a name occurs twice in an object, because readers differ in which
            they take; or if a string has half a surrogate pair, which no UTF-8 file can hold.
        RecursionError: if it is nested too deeply.
    """
    value = json.loads(text, object_pairs_hook=_unique_names)
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _unique_names(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(items)
    if len(fields) < len(items):
        raise ValueError("a name occurs twice")
    return fields


def read_text_file(path: Path) -> str:
    """Return the text of a file, without a byte order mark.

    Raises:
        ValueError: if the file is missing or not in UTF-8.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} does not exist in {path.parent}, or is not a file. Name a text file.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not text in UTF-8. Save it as UTF-8.") from error
