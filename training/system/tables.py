"""CSV files of prompts: UTF-8, one header line, read row by row."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

START_BYTES = 4096  # of a file, to see what it is
_COLUMN = re.compile(r"[\w-]{1,24}")


def start_of(path: Path) -> bytes:
    """Return the first bytes of a file, none where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(START_BYTES)
    except OSError:
        return b""


def read_csv(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the name and the cells of each row, stripped; a cell that is missing is empty.

    Names of columns come stripped and in lower case, so that `Prompt, Category` is `prompt,category`, and
    with a line between the words of `ageYears`, so that the hard rule still reads them.

    Cells beyond the header are joined under the name `""`, so that no text escapes the hard rule. The
    name is file and line, such as `train.csv line 3`.

    Args:
        path: the file, with or without a byte order mark.
        columns: names the header must have.

    Raises:
        ValueError: if the file is missing, no CSV in UTF-8, lacks a column, or has one twice.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} does not exist in {path.parent}, or is no file. Name a CSV file.")
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restkey="", restval="")
        try:
            reader.fieldnames = [_column(name) for name in reader.fieldnames or ()]
            missing = [name for name in columns if name not in reader.fieldnames]
            if missing:
                raise ValueError(
                    f"{path.name} has no column {', '.join(missing)}; its first line is to be "
                    f"{','.join(columns)}. It has {named_columns(reader.fieldnames)}."
                )
            twice = [name for name, count in Counter(reader.fieldnames).items() if count > 1]
            if twice:  # only one of them would be read, and the hard rule would miss the other
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
    """Return what is found in place of the columns looked for, for people.

    Of a file without a line of names the first row would stand there, so only single words are named: no
    prompt is shown.
    """
    listed = [name for name in names if name]
    marks = "".join(listed)
    for what, mark in (("semicolons", ";"), ("tabs", "\t")):
        if mark in marks:
            return f"columns parted by {what}: save it with commas instead"
    words = [name for name in listed if _COLUMN.fullmatch(name)]
    others = [f"{len(listed) - len(words)} that are no single word"] if len(words) < len(listed) else []
    return f"the columns {', '.join(words + others)}" if listed else "no named column"


def _text(cell: str | list[str]) -> str:
    return (cell if isinstance(cell, str) else " ".join(cell)).strip()


def parse_row(line: str | bytes) -> dict[str, Any] | None:
    """Return the fields of a line; None if it is no JSON object.

    None also where a name stands twice, since readers differ in which they take, and where a text holds half
    a surrogate pair, which no file can.
    """
    try:
        fields = parse_json(line.decode("utf-8") if isinstance(line, bytes) else line)
    except (ValueError, RecursionError):  # bad JSON, bad UTF-8, a name twice, nested without end
        return None
    return fields if isinstance(fields, dict) else None


def parse_json(text: str) -> Any:
    """Return what a JSON text holds.

    Raises:
        ValueError: if it is none, a name stands twice, or a text holds half a surrogate pair.
        RecursionError: if it is nested without end.
    """
    found = json.loads(text, object_pairs_hook=_once)
    json.dumps(found, ensure_ascii=False).encode("utf-8")
    return found


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a name stands twice")
    return fields


def read_text_file(path: Path) -> str:
    """Return the text of a file, without a byte order mark.

    Raises:
        ValueError: naming the file, if there is none or it is not UTF-8.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} does not exist in {path.parent}, or is no file. Name a text file.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not text in UTF-8. Save it as UTF-8.") from error
