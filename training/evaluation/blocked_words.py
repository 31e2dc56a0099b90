"""Words a filter of prompts would block, from a list the person brings. Reports count them and quote none."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..rules.disguises import plain
from ..rules.terms import Terms
from ..system.tables import read_text_file

_ENDING = ".txt"


@dataclass(frozen=True)
class BlockedWords:
    """A list of blocked words.

    Attributes:
        number: of its words and phrases.
        sha256: of its file.
        terms: finds them.
    """

    number: int
    sha256: str
    terms: Terms

    def are_in(self, prompt: str) -> bool:
        """Say whether one of them is in a prompt, also disguised or inflected."""
        return self.terms.has_any_form(prompt)

    def facts(self) -> dict[str, Any]:
        """Return which list it is, without its words."""
        return {"number": self.number, "sha256": self.sha256}


def is_blocked_words(path: Path) -> bool:
    """Say whether a path ends like a list of blocked words."""
    return path.suffix.lower() == _ENDING


def read_blocked_words(file: Path) -> BlockedWords:
    """Read a list: one word or phrase a line; blank lines and lines that begin with `#` are passed over.

    Raises:
        ValueError: if the file is missing, no .txt, not UTF-8, or holds no word.
    """
    if not is_blocked_words(file):
        raise ValueError(f"{file.name} is no list of blocked words. Use a {_ENDING} with one word a line.")
    lines = [line.strip() for line in read_text_file(file).splitlines()]
    words = {" ".join(line.casefold().split()) for line in lines if line and not line.startswith("#")}
    if not words:
        raise ValueError(f"{file.name} holds no word. Write one word or phrase a line.")
    plainly = {plain(word) for word in words}  # as prompts are read: without accents and look-alikes
    terms = Terms(word for word in words | plainly if word.strip())
    return BlockedWords(len(words), hashlib.sha256(file.read_bytes()).hexdigest(), terms)
