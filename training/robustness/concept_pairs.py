"""Prompts with and without a concept, from a text or a file, as the person brings them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..pairs.prompts import read_paired_prompts
from ..pairs.report import MALFORMED, reason_lines
from ..pairs.rows import RowDroppedError, read_text
from ..rules.hard_rule import joins_minor_and_sexual

BAR = "|"


class ConceptPair(NamedTuple):
    """Two prompts that differ in a concept only."""

    having: str
    lacking: str


class ConceptPairs(NamedTuple):
    """The usable pairs, and why others are not: reason -> names of the rows."""

    pairs: tuple[ConceptPair, ...]
    dropped: dict[str, list[str]]

    def report(self) -> str:
        """Return how many pairs there are and which rows were dropped, never a prompt."""
        return "\n".join([f"{len(self.pairs)} pairs of prompts", *reason_lines(self.dropped)])


def parse_concept_pairs(text: str) -> ConceptPairs:
    """Read pairs from lines `prompt with the concept | the same without`; blank lines are passed over.

    Rows that join sexual content with a word for a minor are dropped, as are placeholders and equal halves.

    Raises:
        ValueError: if no line can be used, or the pairs join it together; it says why.
    """
    lines = enumerate(text.removeprefix("\ufeff").splitlines(), start=1)
    return _usable((f"line {number}", _fields(line)) for number, line in lines if line.strip())


def read_concept_pairs(path: Path) -> ConceptPairs:
    """Read pairs from a file, see `read_paired_prompts`: the unsafe prompt has the concept, the safe one not.

    Raises:
        ValueError: if there is no such file, or no row can be used; it says why.
    """
    return _usable(read_paired_prompts(path))


def _usable(rows: Iterable[tuple[str, Mapping[str, Any] | None]]) -> ConceptPairs:
    pairs: list[ConceptPair] = []
    dropped: dict[str, list[str]] = {}
    for name, fields in rows:
        try:
            if fields is None:
                raise RowDroppedError(MALFORMED)
            row = read_text({"id": name, **fields}, ("unsafe_prompt", "safe_prompt"), ())
            pairs.append(ConceptPair(row["unsafe_prompt"], row["safe_prompt"]))
        except RowDroppedError as error:
            dropped.setdefault(error.reason, []).append(name)
    if not pairs:
        why = "\n".join(reason_lines(dropped)) or "there is no line."
        raise ValueError(
            "no pair of prompts can be used. Write one pair a line, as "
            f"`prompt with the concept {BAR} the same prompt without it`, or name a paired file.\n{why}"
        )
    if joins_minor_and_sexual((), *(text for pair in pairs for text in pair)):
        raise ValueError(
            "the pairs together join sexual content with a word for a minor, and the direction is their "
            "mean. They are not used, and there is no switch for that."
        )
    return ConceptPairs(tuple(pairs), dropped)


def _fields(line: str) -> Mapping[str, Any] | None:
    halves = line.split(BAR)
    return {"unsafe_prompt": halves[0], "safe_prompt": halves[1]} if len(halves) == 2 else None
