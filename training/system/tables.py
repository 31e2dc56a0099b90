"""CSV tables and JSON rows, read strictly: nothing is guessed or skipped."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from .texts import read_text_file, text_lines

_COLUMN = re.compile(r"[\w-]{1,24}")
_SEPARATOR = re.compile(r'"?sep=([,;\t|])"?\s*')  # first line, by which Excel recognises the separator
_END = "\ue000end of the table\ue000"  # read as a row of its own, unless a quote before it is still open
_ARRAY = re.compile(r"\s*\[\s*\{")


def read_csv(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the name and the cells of each row, stripped; a missing cell is empty.

    The name of a row is file and line, such as `train.csv line 3`. Names of columns are stripped and in lower
    case, so that `Title, Author` is `title,author`, and `ageYears` becomes `age_years`. Cells without a
    column name, such as an index, are joined under the name `""`, so that a check of all cells misses none.
    Rows without any text are skipped.

    Args:
        path: the file, as `read_text_file` reads it.
        columns: names that the header must have.

    Raises:
        ValueError: if the file is missing, is not CSV, lacks a column, or has one twice.
    """
    rows = csv_rows(read_text_file(path), path.name)
    _, header = next(rows, (0, []))
    names = [_column(name) for name in header]
    missing = [name for name in columns if name not in names]
    if missing:
        raise ValueError(
            f"{path.name} has no column {', '.join(missing)}; its first line must be "
            f"{','.join(columns)}. It has {named_columns(names)}."
        )
    twice = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    if twice:  # only one of them would be read
        raise ValueError(f"{path.name} has the column {twice[0]!r} twice. Rename or remove one.")
    for line, cells in rows:
        yield f"{path.name} line {line}", _fields(names, cells)


def _fields(names: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    fields = {name: "" for name in names if name}
    unnamed = []
    for name, cell in zip_longest(names, cells, fillvalue=""):
        if name:
            fields[name] = cell.strip()
        elif cell.strip():
            unnamed.append(cell.strip())
    return {**fields, "": " ".join(unnamed)} if unnamed else fields


def csv_rows(text: str, name: str, *, skip_space: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of its last line and the cells of each row that has any text.

    A first line such as `sep=;`, which Excel writes, sets the separator.

    Args:
        text: the text of a table.
        name: of the table, for errors.
        skip_space: skip spaces after a comma, so that a quote may follow them.

    Raises:
        ValueError: if a quote is never closed, or a cell is longer than `csv.field_size_limit()`.
    """
    lines = text_lines(text, keep_ends=True)
    separator = _SEPARATOR.fullmatch(lines[0]) if lines else None
    if separator:
        lines[0] = "\n"  # stays, because lines are counted
    delimiter = separator[1] if separator else ","
    reader = csv.reader([*lines, _END], delimiter=delimiter, skipinitialspace=skip_space)
    first = 1  # line on which the row begins
    while True:
        try:
            cells = next(reader)
        except csv.Error as error:
            raise ValueError(
                f"{name} line {first}: a cell that begins there has more than {csv.field_size_limit()} "
                "letters, as when a quote is not closed. Close the quote, or remove the row."
            ) from error
        if cells == [_END]:
            return
        if any(_END in cell for cell in cells):
            raise ValueError(f"{name} line {first}: a quote that begins there is never closed. Close it.")
        if any(map(str.strip, cells)):
            yield reader.line_num, cells
        first = reader.line_num + 1


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


class JsonRow(NamedTuple):
    """A row of JSON lines, or an entry of a JSON array.

    Attributes:
        place: file and number, such as `pairs.jsonl line 3` or `pairs.jsonl entry 2`.
        text: the row on one line.
        fields: None if it is not a JSON object that `parse_json` accepts.
    """

    place: str
    text: str
    fields: dict[str, Any] | None


def read_json_rows(path: Path) -> Iterator[JsonRow]:
    """Yield the rows of a file of JSON lines, or of one JSON array of objects; blank lines are skipped.

    Raises:
        ValueError: if the file is missing, is not text, or begins as an array and is not JSON.
    """
    return json_rows(read_text_file(path), path.name)


def json_rows(text: str, name: str) -> Iterator[JsonRow]:
    """Yield the rows of a text, see `read_json_rows`; `name` is that of the file."""
    if is_json_array(text):
        for number, entry in enumerate(_parsed(text, name), start=1):
            fields = entry if isinstance(entry, dict) else None
            yield JsonRow(f"{name} entry {number}", json.dumps(entry, ensure_ascii=False), fields)
        return
    for number, line in enumerate(text_lines(text), start=1):
        if line.strip():
            yield JsonRow(f"{name} line {number}", line, parse_row(line))


def is_json_array(text: str) -> bool:
    """Return whether a text begins as a JSON array of objects does."""
    return _ARRAY.match(text) is not None


def read_json(path: Path) -> Any:
    """Return the value of a JSON file.

    Raises:
        ValueError: if the file is missing, is not text, or `parse_json` refuses it; it names the line.
    """
    return _parsed(read_text_file(path), path.name)


def _parsed(text: str, name: str) -> Any:
    try:
        return parse_json(text)
    except RecursionError as error:
        raise ValueError(f"{name} cannot be read as JSON: it is nested too deeply.") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise ValueError(f"{name} cannot be read as JSON: {place} ({error.msg}). Correct it.") from error
    except ValueError as error:
        raise ValueError(f"{name} cannot be read as JSON: {error}.") from error


def parse_row(line: str) -> dict[str, Any] | None:
    """Return the fields of a line, or None if it is not a JSON object that `parse_json` accepts."""
    try:
        fields = parse_json(line)
    except (ValueError, RecursionError):
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
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("a text has half a surrogate pair") from error
    return value


def _unique_names(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(items)
    if len(fields) < len(items):
        raise ValueError("a name occurs twice in an object")
    return fields
