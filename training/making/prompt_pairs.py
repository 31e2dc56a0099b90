"""Read the prompts that pairs are drawn from: an unsafe prompt and its safe half per line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..pairs.report import DUPLICATE_ID, INCOMPLETE, MALFORMED, reason_lines
from ..pairs.rows import RowDroppedError, read_categories, read_text
from ..system.tables import is_json_array, json_rows, parse_row
from ..system.texts import MARK, text_lines

ARROW = "=>"


class PromptPair(NamedTuple):
    """An unsafe prompt and its safe half."""

    id: str
    categories: tuple[str, ...]
    unsafe_prompt: str
    safe_prompt: str


class PromptPairs(NamedTuple):
    """The usable lines, and those that were dropped: reason -> line numbers."""

    pairs: tuple[PromptPair, ...]
    dropped: dict[str, list[str]]


def parse_prompt_pairs(text: str, category: str = "") -> PromptPairs:
    """Read paired prompts.

    A line is `unsafe prompt => safe prompt`, or a JSON object with unsafe_prompt, safe_prompt and optionally
    id and category, as in pairs.jsonl. Blank lines are skipped. The rules of a manifest apply: placeholders,
    equal halves and rows that combine sexual content with a word for a minor are dropped.

    Args:
        text: the lines.
        category: category of lines that do not name one.

    Raises:
        ValueError: with the reasons, if no line can be used.
    """
    pairs: dict[str, PromptPair] = {}
    dropped: dict[str, list[str]] = {}
    for name, fields in _lines(text.lstrip(MARK), category):
        try:
            pair = _pair(fields)
            if pair.id in pairs:
                raise RowDroppedError(DUPLICATE_ID)
            pairs[pair.id] = pair
        except RowDroppedError as error:
            dropped.setdefault(error.reason, []).append(name)
    if not pairs:
        reasons = "\n".join(reason_lines(dropped)) or "there is no line."
        raise ValueError(
            "no line of prompts can be used. Write one pair per line, as "
            f"`unsafe prompt {ARROW} safe prompt`, and choose a category, or write JSON objects as in "
            f"pairs.jsonl.\n{reasons}"
        )
    return PromptPairs(tuple(pairs.values()), dropped)


def _lines(text: str, category: str) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    for name, fields in _rows(text):
        if fields is not None and not fields.get("category", fields.get("categories")) and category:
            fields = {**fields, "category": category}
        yield name, fields


def _rows(text: str) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    if is_json_array(text):
        yield from ((row.place, row.fields) for row in json_rows(text, "the text"))
        return
    for number, line in enumerate(text_lines(text), start=1):
        if line.strip():
            yield f"line {number}", _fields(line.strip())


def _fields(line: str) -> Mapping[str, Any] | None:
    """Return the fields of a line; None if it is neither an object nor a pair with one arrow."""
    if line.startswith("{"):
        return parse_row(line)
    halves = line.split(ARROW)
    return {"unsafe_prompt": halves[0], "safe_prompt": halves[1]} if len(halves) == 2 else None


def _pair(fields: Mapping[str, Any] | None) -> PromptPair:
    if fields is None:
        raise RowDroppedError(MALFORMED)
    row = {"id": _content_id(fields), **fields}
    text = read_text(row, ("unsafe_prompt", "safe_prompt"), ())
    categories = read_categories(row)
    if "\0" in text["id"]:
        raise RowDroppedError(INCOMPLETE)
    return PromptPair(text["id"], categories, text["unsafe_prompt"], text["safe_prompt"])


def _content_id(fields: Mapping[str, Any]) -> str:
    content = json.dumps([fields.get(name) for name in ("category", "unsafe_prompt", "safe_prompt")])
    return hashlib.sha256(content.encode()).hexdigest()[:12]
