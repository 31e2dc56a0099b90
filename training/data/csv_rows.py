"""CSV files of prompts: UTF-8, one header line, read row by row."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

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
