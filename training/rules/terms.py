"""Find the terms of a person's list in prompts, also disguised (see `disguises`) or inflected."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .disguises import readings

_ENDINGS = (  # ending of the inflected word, and of its base form
    ("s", ""),
    ("es", ""),
    ("ies", "y"),
    ("ves", "f"),
    ("ves", "fe"),
    ("ed", ""),
    ("ed", "e"),
    ("ied", "y"),
    ("ing", ""),
    ("ing", "e"),
    ("", "s"),  # for a term in the plural
    ("", "es"),
    ("y", "ies"),
    ("f", "ves"),
    ("fe", "ves"),
)
_DOUBLED = re.compile(r"\b(\w+([bdfgklmnprtvz]))\2(?:ed|ing)\b", re.IGNORECASE)


def other_forms(text: str) -> set[str]:
    """Return variants of a text: in each, one kind of ending is replaced in every word that has it."""
    forms = {re.sub(rf"\b(\w\w+){old}\b", rf"\g<1>{new}", text, flags=re.I) for old, new in _ENDINGS}
    return {*forms, _DOUBLED.sub(r"\1", text)} - {text}


class Terms:
    """Finds terms as whole words in any case; the time does not grow with the number of terms.

    Args:
        terms: words or phrases, none of them blank; case and spaces are ignored.
    """

    def __init__(self, terms: Iterable[str]) -> None:
        self._terms = {key(term) for term in terms}
        by_word: dict[str, list[str]] = {}
        for term in self._terms:
            by_word.setdefault(_first_word(term), []).append(spelled(term))
        self._patterns = {word: whole_words("|".join(terms)) for word, terms in by_word.items()}

    def __len__(self) -> int:
        return len(self._terms)

    def has_term(self, prompt: str) -> bool:
        """Return whether a prompt contains a term, also disguised."""
        texts = (prompt, *readings(prompt))
        return any(pattern.search(text) for text in texts for pattern in self._likely(text))

    def has_any_form(self, prompt: str) -> bool:
        """Return whether a prompt contains a term, also disguised or inflected."""
        return any(map(self.has_term, (prompt, *other_forms(prompt))))

    def _likely(self, text: str) -> Iterator[re.Pattern[str]]:
        """Yield patterns of terms whose first word is in a text, and of terms that start with a sign."""
        words = {"", *re.findall(r"\w+", text.casefold())}
        return (self._patterns[word] for word in words & self._patterns.keys())


def key(term: str) -> str:
    """Return a term in lower case with single spaces, so that equal terms have equal keys."""
    return " ".join(term.casefold().split())


def spelled(term: str) -> str:
    """Return a regular expression for a term, with any space between its words."""
    return r"\s+".join(map(re.escape, term.split()))


def whole_words(expression: str) -> re.Pattern[str]:
    """Return a pattern that finds an expression as whole words, in any case."""
    return re.compile(rf"(?<!\w)(?:{expression})(?!\w)", re.IGNORECASE)


def _first_word(term: str) -> str:
    return re.match(r"\w*", term)[0]
