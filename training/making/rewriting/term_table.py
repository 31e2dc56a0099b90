"""A table of terms and what to write for them, which the person edits."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...rules.terms import Terms, key, spelled, whole_words

_HEADER = ("term", "replacement")


class TermTable(Terms):
    """Replaces terms, the longest first and only as whole words, and finds those that are left.

    Args:
        replacements: term -> text to write for it, both not blank; case and spaces of a term do not matter.
    """

    def __init__(self, replacements: Mapping[str, str]) -> None:
        super().__init__(replacements)
        texts = {key(term): text.strip() for term, text in replacements.items()}
        longest_first = sorted(texts, key=lambda term: (-len(term), term))
        self._pattern = whole_words("|".join(f"({spelled(term)})" for term in longest_first))
        self._in_order = [texts[term] for term in longest_first]

    def rewrite(self, prompt: str) -> str | None:
        """Return the prompt with every term replaced, its case kept; None where there is no term."""
        text, count = self._pattern.subn(self._replacement, prompt)
        return text if count else None

    def _replacement(self, match: re.Match[str]) -> str:
        # by the term's own group: `KNİFE` matches the term `knife` and is another key
        found, text = match[0], self._in_order[match.lastindex - 1]
        if len(found) > 1 and found.isupper():
            return text.upper()
        return text[:1].upper() + text[1:] if found[:1].isupper() else text


def table_rewriter(source: RewriteSource) -> Callable[[str], str | None]:
    """Return a rewriter that replaces the terms of the person's table.

    Raises:
        ValueError: if there is no table.
    """
    if source.terms is None:
        raise ValueError("rewriting by a table needs one: lines of `term,replacement`, or a JSON object.")
    return source.terms.rewrite


def parse_terms(text: str) -> TermTable:
    """Read a table: a JSON object of term and replacement, or CSV lines `term,replacement`.

    A first line that reads `term,replacement` is passed over, as are blank lines and lines that begin with
    `#`. Of a term that stands there twice the last replacement counts.

    Raises:
        ValueError: if there is no term, or a line is no pair of texts.
    """
    text = text.removeprefix("\ufeff")
    found = _from_json(text) if text.lstrip().startswith("{") else _from_csv(text)
    for term, replacement in found.items():
        if not term.strip() or not isinstance(replacement, str) or not replacement.strip():
            raise ValueError(
                f"the table has an empty term or replacement near {term.strip()!r}. Write a text for both."
            )
    if not found:
        raise ValueError("the table holds no term. Write one a line, as `term,replacement`.")
    return TermTable(found)


def _from_json(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("the table begins with { but is no JSON object of term and replacement.") from error
    return found


def _from_csv(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, cells in enumerate(csv.reader(text.splitlines(), skipinitialspace=True), start=1):
        if not any(cells) or cells[0].startswith("#"):
            continue
        if len(cells) != 2:
            raise ValueError(
                f"row {number} of the table has {len(cells)} cells. Write `term,replacement`, with quotes "
                "around a text that holds a comma."
            )
        if tuple(cell.strip().casefold() for cell in cells) != _HEADER:
            found[cells[0]] = cells[1]
    return found


@dataclass(frozen=True)
class RewriteSource:
    """What the person gave.

    Args:
        terms: their table; with the other ways it is what must not be left in a rewrite.
        paired_file: file or folder of prompts somebody rewrote before.
        endpoint: URL of a language model they run; empty is off.
        endpoint_model: name of the model there.
        allowed_host: a host beside this machine that they named by hand.
    """

    terms: TermTable | None = None
    paired_file: Path | None = None
    endpoint: str = ""
    endpoint_model: str = ""
    allowed_host: str = ""
