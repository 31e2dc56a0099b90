"""Paired prompts, one pair a line: what pairs are drawn from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..pairs.report import DUPLICATE_ID, INCOMPLETE, MALFORMED, reason_lines
from ..pairs.rows import RowDroppedError, read_categories, read_text
from ..system.tables import parse_row

ARROW = "=>"


class PromptPair(NamedTuple):
    """An unsafe prompt and its safe half."""

    id: str
    categories: tuple[str, ...]
    unsafe_prompt: str
    safe_prompt: str


class PromptPairs(NamedTuple):
    """The usable lines, and why others are not: reason -> ids or line numbers."""

    pairs: tuple[PromptPair, ...]
    dropped: dict[str, list[str]]


def parse_prompt_pairs(text: str, category: str = "") -> PromptPairs:
    """Read paired prompts.

    A line is `unsafe prompt => safe prompt`, or a JSON object with unsafe_prompt, safe_prompt and perhaps
    id and category, as in pairs.jsonl. Blank lines are passed over. The rules of a manifest hold here too:
    placeholders, equal halves and rows that join sexual content with a word for a minor are dropped.

    Args:
        text: the lines.
        category: of lines that name none.

    Raises:
        ValueError: if no line can be used; it says why.
    """
    pairs: dict[str, PromptPair] = {}
    dropped: dict[str, list[str]] = {}
    for name, fields in _lines(text.removeprefix("\ufeff"), category):
        try:
            pair = _pair(fields)
            if pair.id in pairs:
                raise RowDroppedError(DUPLICATE_ID)
            pairs[pair.id] = pair
        except RowDroppedError as error:
            dropped.setdefault(error.reason, []).append(name)
    if not pairs:
        why = "\n".join(reason_lines(dropped)) or "there is no line."
        raise ValueError(
            f"no line of prompts can be used. Write one pair a line, as `unsafe prompt {ARROW} safe prompt`, "
            f"and choose a category, or JSON objects as in pairs.jsonl.\n{why}"
        )
    return PromptPairs(tuple(pairs.values()), dropped)


def _lines(text: str, category: str) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            fields = _fields(line.strip())
            if fields is not None and not fields.get("category", fields.get("categories")) and category:
                fields = {**fields, "category": category}
            yield f"line {number}", fields


def _fields(line: str) -> Mapping[str, Any] | None:
    """Return a line's fields; None for one that is neither an object nor a pair with one arrow."""
    if line.startswith("{"):
        return parse_row(line)
    halves = line.split(ARROW)
    return {"unsafe_prompt": halves[0], "safe_prompt": halves[1]} if len(halves) == 2 else None


def _pair(fields: Mapping[str, Any] | None) -> PromptPair:
    if fields is None:
        raise RowDroppedError(MALFORMED)
    named = {"id": _content_id(fields), **fields}
    row = read_text(named, ("unsafe_prompt", "safe_prompt"), ())
    categories = read_categories(named)
    if "\0" in row["id"]:
        raise RowDroppedError(INCOMPLETE)
    return PromptPair(row["id"], categories, row["unsafe_prompt"], row["safe_prompt"])


def _content_id(fields: Mapping[str, Any]) -> str:
    content = json.dumps([fields.get(name) for name in ("category", "unsafe_prompt", "safe_prompt")])
    return hashlib.sha256(content.encode()).hexdigest()[:12]
