"""Words that a prompt filter would block, from a list the user provides; reports count them, quote none."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..rules.disguises import plain
from ..rules.terms import Terms
from ..system.texts import read_text_file, text_lines

_ENDING = ".txt"


@dataclass(frozen=True)
class BlockedWords:
    """A list of blocked words.

    Attributes:
        number: number of words and phrases.
        sha256: SHA-256 of the file.
        terms: finds them in a text.
    """

    number: int
    sha256: str
    terms: Terms

    def are_in(self, prompt: str) -> bool:
        """Return whether a prompt contains one of them, disguised and inflected forms included."""
        return self.terms.has_any_form(prompt)

    def facts(self) -> dict[str, Any]:
        """Return what identifies the list, without its words."""
        return {"number": self.number, "sha256": self.sha256}


def is_blocked_words(path: Path) -> bool:
    """Return whether the suffix of a path is that of a list of blocked words."""
    return path.suffix.lower() == _ENDING


def read_blocked_words(file: Path) -> BlockedWords:
    """Read a list with one word or phrase per line; blank lines and lines that begin with `#` are skipped.

    Raises:
        ValueError: if the file is missing, is not a .txt that `read_text_file` reads, or contains no word.
    """
    if not is_blocked_words(file):
        raise ValueError(
            f"{file.name} is not a list of blocked words. Use a {_ENDING} with one word per line."
        )
    words = _words(read_text_file(file))
    if not words:
        raise ValueError(f"{file.name} contains no word. Write one word or phrase per line.")
    return BlockedWords(len(words), hashlib.sha256(file.read_bytes()).hexdigest(), _terms(words))


def parse_blocked_words(text: str) -> Terms | None:
    """Return what finds the words of a text, written as in a file; None if it contains no word."""
    words = _words(text)
    return _terms(words) if words else None


def _words(text: str) -> set[str]:
    lines = (line.strip() for line in text_lines(text))
    return {" ".join(line.casefold().split()) for line in lines if line and not line.startswith("#")}


def _terms(words: set[str]) -> Terms:
    plain_words = {plain(word) for word in words}  # as prompts are read: without accents and look-alikes
    return Terms(word for word in words | plain_words if word.strip())
