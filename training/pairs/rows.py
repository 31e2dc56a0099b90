"""The lines of a manifest: read one by one, and checked as far as text alone can tell."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..rules.categories import normalize_categories
from ..rules.hard_rule import joins_minor_and_sexual, row_texts
from ..system.tables import parse_row
from .report import HARD_RULE, INCOMPLETE, MALFORMED, PLACEHOLDER, SAME_PROMPT

# Letters and digits of a prompt that nobody meant; CoProV2 has "----prompt-------" six times.
_PLACEHOLDERS = {
    "",
    "prompt",
    "safeprompt",
    "unsafeprompt",
    "todo",
    "tbd",
    "na",
    "none",
    "null",
    "placeholder",
}
_CATEGORY_FIELDS = ("category", "categories")


class RowDroppedError(Exception):
    """Ends the reading of one row; `reason` is a line of the report."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read_rows(manifest: Path) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """Yield name and fields of each line that is not blank; None for a line that is no JSON object.

    The name is the row's id, else file and line, such as `pairs.jsonl line 3`.
    """
    for number, line in enumerate(manifest.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            fields = parse_row(line)
            yield _id(fields or {}) or f"{manifest.name} line {number}", fields


def read_text(
    fields: Mapping[str, Any] | None, prompts: tuple[str, ...], images: tuple[str, ...]
) -> dict[str, str]:
    """Return the id, prompts and image paths of a row, stripped, by field name.

    Args:
        fields: the row; None for a malformed line.
        prompts: names of its prompt fields.
        images: names of its image fields.

    Raises:
        RowDroppedError: if something is missing or no text, the hard rule forbids the row, or a prompt
            is a placeholder or there twice.
    """
    if fields is None:
        raise RowDroppedError(MALFORMED)
    if joins_minor_and_sexual(raw_categories(fields), *row_texts(fields)):
        raise RowDroppedError(HARD_RULE)  # first, so that it is counted whatever else is wrong
    row = {name: fields.get(name) for name in (*prompts, *images)}
    if not _id(fields) or not all(isinstance(value, str) and value.strip() for value in row.values()):
        raise RowDroppedError(INCOMPLETE)
    row = {name: value.strip() for name, value in row.items()}
    if any(is_placeholder(row[name]) for name in prompts):
        raise RowDroppedError(PLACEHOLDER)
    if len({prompt_key(row[name]) for name in prompts}) < len(prompts):
        raise RowDroppedError(SAME_PROMPT)
    return {"id": _id(fields), **row}


def read_categories(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the normalised categories of a row, at least one.

    Raises:
        RowDroppedError: if there is none, or a name is no text.
    """
    try:
        listed = [fields[each] for each in _CATEGORY_FIELDS if isinstance(fields.get(each), list)]
        if not all(isinstance(name, str) for names in listed for name in names):
            raise RowDroppedError(INCOMPLETE)
        categories = normalize_categories(raw_categories(fields))
    except ValueError as error:
        raise RowDroppedError(INCOMPLETE) from error
    if not categories:
        raise RowDroppedError(INCOMPLETE)
    return categories


def read_safety_gap(fields: Mapping[str, Any]) -> float | None:
    """Return how much safer judges found the safe image than the unsafe one, in [-1, 1]; None: not judged.

    The field is `scores: {"unsafe_image": 0.97, "safe_image": 0.02}`, 1 is unsafe.
    """
    scores = fields.get("scores")
    if not isinstance(scores, Mapping):
        return None
    unsafe, safe = (scores.get(name) for name in ("unsafe_image", "safe_image"))
    if not all(type(score) in (int, float) and 0 <= score <= 1 for score in (unsafe, safe)):
        return None
    return float(unsafe - safe)


def prompt_key(prompt: str) -> str:
    """Return what two spellings of one prompt share: case and spaces make no difference."""
    return " ".join(prompt.casefold().split())


def is_placeholder(prompt: str) -> bool:
    """Say whether a prompt is text that nobody meant, such as `----prompt-------`."""
    return re.sub(r"[\W_]+", "", prompt.casefold()) in _PLACEHOLDERS


def _id(fields: Mapping[str, Any]) -> str:
    value = fields.get("id", "")
    is_name = isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    return str(value).strip() if is_name else ""


def raw_categories(fields: Mapping[str, Any]) -> list[str]:
    """Return the categories as written, of both fields that may hold them.

    What is no text is left out, so that the hard rule sees the rest.
    """
    return [name for each in _CATEGORY_FIELDS for name in _names(fields.get(each))]


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        return [part for part in _unbracketed(value).split(",") if part.strip()]
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _unbracketed(value: str) -> str:
    """Return `violence, shocking` of `['violence', 'shocking']`, as tables of lists are saved."""
    text = value.strip()
    is_list = text.startswith("[") and text.endswith("]")
    return ",".join(part.strip(" \t\"'") for part in text[1:-1].split(",")) if is_list else value


RIGHT = ("loser_is_unsafe", "winner_is_safe")


def read_judged_right(fields: Mapping[str, Any]) -> bool | None:
    """Return whether judges found the unsafe image unsafe and the safe one safe; None: nobody says.

    The field is `scores: {"loser_is_unsafe": true, "winner_is_safe": true}`, beside the scores themselves.
    """
    scores = fields.get("scores")
    said = [scores.get(name) for name in RIGHT] if isinstance(scores, Mapping) else [None]
    return all(said) if all(isinstance(each, bool) for each in said) else None
