"""Latent Guard: block a prompt that comes near a concept of a list, in the space of a text encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..pairs.rows import prompt_key
from ..rules.hard_rule import joins_minor_and_sexual, refuse_minors
from .calibration import Calibration
from .concept_head import ConceptHead, head_from, score_blocks
from .encoder import GuardEncoder
from .guard_file import GuardFile
from .verdict import GuardVerdict

FILE_KIND = "concept_guard"


class GuardConcept(NamedTuple):
    """A concept that a guard looks for.

    Attributes:
        word: the word or words; empty where the file does not store them.
        category: of harm; empty if there is none.
        is_trained: whether the head was trained with it.
    """

    word: str
    category: str = ""
    is_trained: bool = True


@dataclass(frozen=True, eq=False, repr=False)
class ConceptGuard:
    """A trained head, its concepts and its threshold, bound to a text encoder.

    Args:
        head: scores prompts against concepts.
        concepts: what it looks for, at least one.
        concept_rows: summary row of each, (concepts, width) fp32.
        encoder: reads the prompts.
        calibration: of the threshold in the file.
        threshold: scores from it on are blocked.
        facts: everything else that the file holds, such as options and held-out figures.
    """

    head: ConceptHead
    concepts: tuple[GuardConcept, ...]
    concept_rows: Tensor
    encoder: GuardEncoder
    calibration: Calibration
    threshold: float
    facts: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"ConceptGuard({len(self.concepts)} concepts)"  # a host writes it into its history

    def look(self, prompt: str) -> GuardVerdict:
        """Return the verdict on a prompt; the rule on minors is asked first, before the encoder sees it."""
        if joins_minor_and_sexual((), prompt):
            return GuardVerdict.of_rule(self.threshold)
        return self.verdict(self.encoder.blocks(prompt))

    def verdict(self, blocks: Sequence[Tensor]) -> GuardVerdict:
        """Return the verdict on an encoded prompt: its worst block decides, because a mean would hide it."""
        scores = self.scores(blocks).max(dim=0).values  # (concepts,)
        nearest = int(scores.argmax())
        score, concept = float(scores[nearest]), self.concepts[nearest]
        is_blocked = score >= self.threshold
        reason = "concept" if is_blocked else ""
        return GuardVerdict(
            is_blocked, score, self.threshold, reason, nearest + 1, len(self.concepts), concept.category
        )

    def scores(self, blocks: Sequence[Tensor]) -> Tensor:
        """Return the cosine of every block with every concept, (blocks, concepts)."""
        return score_blocks(self.head, blocks, self.concept_rows)

    def at(self, threshold: float | None) -> ConceptGuard:
        """Return the guard with another threshold; None keeps the one of the file."""
        return self if threshold is None else replace(self, threshold=threshold)

    def only(self, words: Iterable[str]) -> ConceptGuard:
        """Return the guard with other concepts; one that it was not trained with counts as not measured.

        Args:
            words: at least one; those of the guard keep their encodings, others are encoded now.

        Raises:
            ValueError: if there is no word, the file stores none to compare with, or the rule on minors
                forbids one, so that it is not encoded; the rule blocks prompts with it anyway.
        """
        wanted = list(dict.fromkeys(filter(None, map(prompt_key, words))))
        by_word = {concept.word: number for number, concept in enumerate(self.concepts) if concept.word}
        if not wanted or not by_word:
            what = "there is no word in the list" if not wanted else "this guard's file stores no words"
            raise ValueError(f"concepts cannot be chosen: {what}. Leave it empty to take all of the guard's.")
        for word in wanted:
            refuse_minors(word)
        concepts, rows = [], []
        for word in wanted:
            number = by_word.get(word)
            new = GuardConcept(word, is_trained=False)
            concepts.append(new if number is None else self.concepts[number])
            rows.append(self.encoder.summary(word) if number is None else self.concept_rows[number])
        return replace(self, concepts=tuple(concepts), concept_rows=torch.stack(rows))

    def describe(self) -> str:
        """Return what the guard is, in words, without any of its concepts."""
        categories = list(dict.fromkeys(concept.category for concept in self.concepts if concept.category))
        of = f" of {', '.join(categories)}" if categories else ""
        untrained = sum(not concept.is_trained for concept in self.concepts)
        lines = [f"{len(self.concepts)} concepts{of}; encoder: {self.encoder.name}", self.calibration.text()]
        if untrained:
            lines.append(
                f"not measured: {untrained} concepts the guard was not trained with. They are scored, and "
                "may be missed or blocked at random."
            )
        if self.threshold != self.calibration.threshold:
            lines.append(f"threshold changed to {self.threshold:.3f}: the rates above are not its own")
        return "\n".join(lines)

    def file(self) -> GuardFile:
        """Return what is written to disk."""
        tensors = {**self.head.state_dict(), "concepts": self.concept_rows}
        concepts = [[concept.word, concept.category] for concept in self.concepts]
        facts = {**self.facts, "concepts": concepts, "heads": self.head.shape.heads}
        encoder = self.encoder
        return GuardFile(FILE_KIND, encoder.kind, encoder.id, self.calibration, tensors, facts)


def guard_of_file(file: GuardFile, encoder: GuardEncoder) -> ConceptGuard:
    """Return the guard of a file.

    Args:
        file: from `read_guard_file`.
        encoder: the text encoder of the model that it stands in front of.

    Raises:
        ValueError: if the file is of another kind, is incomplete, or was trained for another encoder.
    """
    if file.kind != FILE_KIND:
        raise ValueError(f"{file.name} is a guard of the kind {file.kind!r}, not {FILE_KIND!r}.")
    file.check_encoder(encoder)
    facts = dict(file.facts)
    head = head_from(file.tensors, facts.pop("heads", None), file.name)
    rows, stored = file.tensors.get("concepts"), facts.pop("concepts", None)
    is_list = isinstance(stored, list) and all(
        isinstance(entry, list) and len(entry) == 2 and all(isinstance(text, str) for text in entry)
        for entry in stored
    )
    if rows is None or not is_list or rows.shape != (len(stored), head.shape.width) or not stored:
        raise ValueError(f"the concepts in {file.name} are damaged. Train or copy the guard again.")
    concepts = tuple(GuardConcept(*entry) for entry in stored)
    calibration = file.calibration
    return ConceptGuard(head, concepts, rows.float(), encoder, calibration, calibration.threshold, facts)


def save_guard(guard: ConceptGuard, path: Path) -> Path:
    """Write the file of a guard, see `GuardFile.write`."""
    return guard.file().write(path)
