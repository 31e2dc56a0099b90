"""Terms of the person, found in prompts however they are spelled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .disguises import readings

_ENDINGS = (  # of the inflected word, and of its base form
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
    ("", "s"),  # for a term that is written in the plural
    ("", "es"),
    ("y", "ies"),
    ("f", "ves"),
    ("fe", "ves"),
)
_DOUBLED = re.compile(r"\b(\w+([bdfgklmnprtvz]))\2(?:ed|ing)\b", re.IGNORECASE)


def other_forms(text: str) -> set[str]:
    """Return the text with one kind of ending exchanged in every word that has it, once per kind."""
    forms = {re.sub(rf"\b(\w\w+){old}\b", rf"\g<1>{new}", text, flags=re.I) for old, new in _ENDINGS}
    return {*forms, _DOUBLED.sub(r"\1", text)} - {text}


class Terms:
    """Finds terms as whole words, whatever their case; a list of thousands takes no longer than a short one.

    Args:
        terms: words or phrases, none of them blank; case and spaces do not matter.
    """

    def __init__(self, terms: Iterable[str]) -> None:
        self._terms = {key(term) for term in terms}
        by_word: dict[str, list[str]] = {}
        for term in self._terms:
            by_word.setdefault(_first_word(term), []).append(spelled(term))
        self._patterns = {word: whole_words("|".join(found)) for word, found in by_word.items()}

    def __len__(self) -> int:
        return len(self._terms)

    def has_term(self, prompt: str) -> bool:
        """Say whether a term is in a prompt, also disguised, see `disguises`."""
        texts = (prompt, *readings(prompt))
        return any(pattern.search(text) for text in texts for pattern in self._likely(text))

    def has_any_form(self, prompt: str) -> bool:
        """Say whether a term is in a prompt, also disguised or inflected, see `other_forms`."""
        return any(map(self.has_term, (prompt, *other_forms(prompt))))

    def _likely(self, text: str) -> Iterator[re.Pattern[str]]:
        """Yield patterns of terms whose first word is in a text, and of those that begin with a sign."""
        words = {"", *re.findall(r"\w+", text.casefold())}
        return (self._patterns[word] for word in words & self._patterns.keys())


def key(term: str) -> str:
    """Return what is the same for all spellings of a term that count as one."""
    return " ".join(term.casefold().split())


def spelled(term: str) -> str:
    """Return the expression of a term, any space between its words."""
    return r"\s+".join(map(re.escape, term.split()))


def whole_words(expression: str) -> re.Pattern[str]:
    """Return a pattern that finds an expression, whatever its case, where no word goes on around it."""
    return re.compile(rf"(?<!\w)(?:{expression})(?!\w)", re.IGNORECASE)


def _first_word(term: str) -> str:
    return re.match(r"\w*", term)[0]
