"""One JSON object a line, from strangers: what is ambiguous or no text is no row."""

import json
from collections.abc import Sequence
from typing import Any


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
