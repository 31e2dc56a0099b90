"""Prompt files in their published formats: CSV, JSON lines, JSON and plain text, with a name for each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..pairs.prompts import NEUTRAL, split_category
from ..pairs.rows import read_rows
from ..system.tables import parse_row, read_csv, read_json
from ..system.texts import read_text_file, text_lines

CLEAN_COLUMN = "clean_prompt"  # the harmless part of an unsafe prompt
_MALICIOUS, _CLEAN, _CASE = "malicious.csv", "clean.csv", "case_number"  # Six-CD's dual version
Row = tuple[str, Mapping[str, Any] | None]  # name for people, fields; None: malformed


def read_prompt_file(path: Path) -> Iterator[Row]:
    """Yield the rows of a prompt file, in order.

    If Six-CD's `clean.csv` lies beside its `malicious.csv`, both are read as one file: `CLEAN_COLUMN` of a
    row then holds the prompt with the same `case_number` in `clean.csv`. A JSON file is a list of objects,
    JSON lines, or COCO's annotations, whose captions are neutral. A line of a text file may begin with its
    category, as in `violence: ...`.

    Raises:
        ValueError: if the file is missing, not text, damaged or of another format; also during iteration.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path.name} is not a prompt set. Use a file of type {', '.join(_READERS)}.")
    if not path.is_file():
        raise ValueError(f"{path.name} does not exist in {path.parent}, or is not a file.")
    return reader(path)


def is_prompt_file(path: Path) -> bool:
    """Return whether the suffix of a path is that of a prompt file."""
    return path.suffix.lower() in _READERS


def _read_table(path: Path) -> Iterator[Row]:
    clean = path.with_name(_CLEAN)
    if path.name != _MALICIOUS or not clean.is_file():
        return read_csv(path, ())
    parts = {fields[_CASE]: fields["prompt"] for _, fields in read_csv(clean, (_CASE, "prompt"))}
    rows = read_csv(path, (_CASE, "prompt"))
    return ((name, {CLEAN_COLUMN: parts.get(fields[_CASE], ""), **fields}) for name, fields in rows)


def _read_json(path: Path) -> Iterator[Row]:
    lines = [line for line in text_lines(read_text_file(path)) if line.strip()]
    if len(lines) > 1 and parse_row(lines[0]) is not None:  # JSON lines, whatever the file is called
        yield from read_rows(path)
        return
    content = read_json(path)
    is_coco = isinstance(content, dict)
    entries = content.get("annotations") if is_coco else content
    if not isinstance(entries, list):
        raise ValueError(f"{path.name} holds neither a list of objects nor COCO's annotations.")
    defaults = {"category": NEUTRAL} if is_coco else {}
    for number, fields in enumerate(entries, start=1):
        yield f"{path.name} entry {number}", {**defaults, **fields} if isinstance(fields, dict) else None


def _read_lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(text_lines(read_text_file(path)), start=1):
        if line.strip():
            category, prompt = split_category(line.strip())
            categories = {} if category is None else {"category": category or NEUTRAL}
            yield f"{path.name} line {number}", {"prompt": prompt, **categories}


_READERS = {".csv": _read_table, ".jsonl": read_rows, ".json": _read_json, ".txt": _read_lines}
