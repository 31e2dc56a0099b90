"""The rows of a manifest: lines become fields, and fields are checked as far as text alone allows.

`read_rows` reads the lines. Each field of a row then has its reader; one that cannot be used raises
`RowDroppedError` with a reason of the report.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..rules.categories import normalize_categories
from ..rules.hard_rule import joins_minor_and_sexual, row_texts
from ..system.tables import JsonRow, read_json_rows
from .report import HARD_RULE, INCOMPLETE, MALFORMED, PLACEHOLDER, SAME_PROMPT

# Letters and digits of prompts left in by mistake; CoProV2 has "----prompt-------" six times.
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
_LARGEST_SCORE = 1e6  # a cost is a logit, a quality at most a percentage; beyond it a number is a mistake
RIGHT = ("loser_is_unsafe", "winner_is_safe")


class RowDroppedError(Exception):
    """Ends the reading of one row.

    Attributes:
        reason: a line of the report.
        detail: what it is about in this row, such as a file; empty if the reason says all.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def read_rows(manifest: Path) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """Yield name and fields of each row, see `read_json_rows`; None for one that is not a JSON object.

    Raises:
        ValueError: if the file is not text, or begins as a JSON array and is not JSON.
    """
    return ((row_name(row), row.fields) for row in read_json_rows(manifest))


def row_name(row: JsonRow) -> str:
    """Return the id of a row, else its place, such as `pairs.jsonl line 3`."""
    return _id(row.fields or {}) or row.place


def read_text(
    fields: Mapping[str, Any] | None, prompts: tuple[str, ...], images: tuple[str, ...]
) -> dict[str, str]:
    """Return the id, prompts and image paths of a row, stripped, by field name.

    Args:
        fields: the row; None for a malformed line.
        prompts: names of its prompt fields.
        images: names of its image fields.

    Raises:
        RowDroppedError: if a field is missing or not text, the hard rule forbids the row, or a prompt is a
            placeholder or occurs twice.
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
        RowDroppedError: if there is none, or a name is not text.
    """
    try:
        lists = [fields[name] for name in _CATEGORY_FIELDS if isinstance(fields.get(name), list)]
        if not all(isinstance(category, str) for categories in lists for category in categories):
            raise RowDroppedError(INCOMPLETE)
        categories = normalize_categories(raw_categories(fields))
    except ValueError as error:
        raise RowDroppedError(INCOMPLETE) from error
    if not categories:
        raise RowDroppedError(INCOMPLETE)
    return categories


def raw_categories(fields: Mapping[str, Any]) -> list[str]:
    """Return the categories as written, from both fields that may hold them.

    Values that are not text are left out, so that the hard rule still sees the others.
    """
    return [category for name in _CATEGORY_FIELDS for category in _category_names(fields.get(name))]


def read_safety_gap(fields: Mapping[str, Any]) -> float | None:
    """Return how much safer judges found the safe image than the unsafe one, in [-1, 1]; None: not judged.

    The field is `scores: {"unsafe_image": 0.97, "safe_image": 0.02}`, where 1 is unsafe.
    """
    scores = fields.get("scores")
    if not isinstance(scores, Mapping):
        return None
    unsafe, safe = (scores.get(name) for name in ("unsafe_image", "safe_image"))
    if not all(type(score) in (int, float) and 0 <= score <= 1 for score in (unsafe, safe)):
        return None
    return float(unsafe - safe)


def read_cost_gap(fields: Mapping[str, Any]) -> float | None:
    """Return how much more the unsafe image costs than the safe one; None: not known.

    The field is `scores: {"cost_unsafe": 2.1, "cost_safe": -1.7}`, as `pairs weigh --cost` writes it.
    """
    return _difference(fields, "cost_unsafe", "cost_safe")


def read_quality_gap(fields: Mapping[str, Any]) -> float | None:
    """Return how much better the safe image is than the unsafe one; None: not known.

    The field is `scores: {"quality_unsafe": 0.2, "quality_safe": 0.3}`, by any reward model.
    """
    return _difference(fields, "quality_safe", "quality_unsafe")


def _difference(fields: Mapping[str, Any], first: str, second: str) -> float | None:
    scores = fields.get("scores")
    if not isinstance(scores, Mapping):
        return None
    values = [scores.get(name) for name in (first, second)]
    if not all(type(value) in (int, float) and abs(value) <= _LARGEST_SCORE for value in values):
        return None  # NaN is no score either
    return float(values[0] - values[1])


def read_judged_right(fields: Mapping[str, Any]) -> bool | None:
    """Return whether judges found the unsafe image unsafe and the safe one safe; None: not judged.

    The field is `scores: {"loser_is_unsafe": true, "winner_is_safe": true}`, beside the scores themselves.
    """
    scores = fields.get("scores")
    verdicts = [scores.get(name) for name in RIGHT] if isinstance(scores, Mapping) else [None]
    return all(verdicts) if all(isinstance(verdict, bool) for verdict in verdicts) else None


def prompt_key(prompt: str) -> str:
    """Return what two spellings of one prompt share: case and spaces make no difference."""
    return " ".join(prompt.casefold().split())


def is_placeholder(prompt: str) -> bool:
    """Tell whether a prompt is text left in by mistake, such as `----prompt-------`."""
    return re.sub(r"[\W_]+", "", prompt.casefold()) in _PLACEHOLDERS


def _id(fields: Mapping[str, Any]) -> str:
    value = fields.get("id", "")
    is_name = isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
    return str(value).strip() if is_name else ""


def _category_names(value: Any) -> list[str]:
    if isinstance(value, str):
        return [part for part in _unbracketed(value).split(",") if part.strip()]
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _unbracketed(value: str) -> str:
    """Return `violence, shocking` for `['violence', 'shocking']`, the way tables store lists."""
    text = value.strip()
    is_list = text.startswith("[") and text.endswith("]")
    return ",".join(part.strip(" \t\"'") for part in text[1:-1].split(",")) if is_list else value
