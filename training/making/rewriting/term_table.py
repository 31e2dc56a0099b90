"""The person's table of terms and replacements: read it, rewrite with it, find terms that are left."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ...rules.terms import Terms, key, spelled, whole_words
from ...system.tables import csv_rows

if TYPE_CHECKING:
    from . import RewriteSource

_HEADER = ("term", "replacement")


class TermTable(Terms):
    """Replaces terms, the longest first and only as whole words.

    Args:
        replacements: term -> replacement, neither of them blank; case and spaces of a term are ignored.
    """

    def __init__(self, replacements: Mapping[str, str]) -> None:
        super().__init__(replacements)
        texts = {key(term): text.strip() for term, text in replacements.items()}
        longest_first = sorted(texts, key=lambda term: (-len(term), term))
        self._pattern = whole_words("|".join(f"({spelled(term)})" for term in longest_first))
        self._in_order = [texts[term] for term in longest_first]

    def rewrite(self, prompt: str) -> str | None:
        """Return the prompt with every term replaced and its case kept; None if it contains no term."""
        text, count = self._pattern.subn(self._replacement, prompt)
        return text if count else None

    def _replacement(self, match: re.Match[str]) -> str:
        # looked up by group, because `KNİFE` matches the term `knife` but has another key
        term, text = match[0], self._in_order[match.lastindex - 1]
        if len(term) > 1 and term.isupper():
            return text.upper()
        return text[:1].upper() + text[1:] if term[:1].isupper() else text


def table_rewriter(source: RewriteSource) -> Callable[[str], str | None]:
    """Return a rewriter that replaces the terms of the person's table.

    Raises:
        ValueError: if there is no table.
    """
    if source.terms is None:
        raise ValueError("rewriting by a table needs a table: lines of `term,replacement`, or a JSON object.")
    return source.terms.rewrite


def parse_terms(text: str) -> TermTable:
    """Read a table: a JSON object of terms and replacements, or CSV lines `term,replacement`.

    A first line `term,replacement`, blank lines and lines that start with `#` are skipped. If a term occurs
    twice, the last replacement is used.

    Raises:
        ValueError: if there is no term, or a line is not a pair of texts.
    """
    text = text.removeprefix("\ufeff")
    replacements = _from_json(text) if text.lstrip().startswith("{") else _from_csv(text)
    for term, replacement in replacements.items():
        if not term.strip() or not isinstance(replacement, str) or not replacement.strip():
            raise ValueError(
                f"the table has an empty term or replacement near {term.strip()!r}. Write a text for both."
            )
    if not replacements:
        raise ValueError("the table holds no term. Write one term per line, as `term,replacement`.")
    return TermTable(replacements)


def _from_json(text: str) -> dict[str, Any]:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            "the table starts with { but is not a JSON object of terms and replacements. Correct the JSON."
        ) from error


def _from_csv(text: str) -> dict[str, str]:
    replacements: dict[str, str] = {}
    for number, cells in csv_rows(text, "the table", skip_space=True):
        if cells[0].startswith("#"):
            continue
        if len(cells) != 2:
            raise ValueError(
                f"line {number} of the table has {len(cells)} cells. Write `term,replacement`, with quotes "
                "around a text that contains a comma."
            )
        if tuple(cell.strip().casefold() for cell in cells) != _HEADER:
            replacements[cells[0]] = cells[1]
    return replacements
