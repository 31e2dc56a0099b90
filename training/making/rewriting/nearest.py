"""Rewrite as the nearest pair was rewritten, found by meaning and without a language model.

The person's pairs are an index: the change of words that made the nearest pair safe is made to the prompt.
Finding positive examples by meaning is T2VShield's idea (arXiv 2504.15512); carrying over an edit is our own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, NamedTuple

import torch.nn.functional as F

from ...evaluation.optional import Package, refuse_missing
from .paired_file import read_halves
from .term_table import TermTable

if TYPE_CHECKING:
    from torch import Tensor

    from ...evaluation.measures.sentences import SentenceModel
    from . import RewriteSource

CANDIDATES = 8  # nearest pairs whose change is tried, nearest first
LEAST = 0.3  # cosine; a pair further away says nothing about the prompt


class Neighbour(NamedTuple):
    """A pair of prompts near another prompt.

    Attributes:
        similarity: cosine of the meanings of the unsafe prompt and the other, from -1 to 1.
        unsafe: unsafe prompt.
        safe: safe prompt.
    """

    similarity: float
    unsafe: str
    safe: str


class Neighbours:
    """Pairs of prompts that are found by the meaning of the unsafe one.

    Args:
        pairs: unsafe and safe prompts.
        model: embeds sentences.
    """

    def __init__(self, pairs: Sequence[tuple[str, str]], model: SentenceModel) -> None:
        self._pairs, self._model = list(pairs), model
        self._rows = self._embedded([unsafe for unsafe, _ in self._pairs]) if self._pairs else None

    def add(self, unsafe: str, safe: str) -> None:
        """Add a pair."""
        rows = self._embedded([unsafe])
        self._rows = rows if self._rows is None else F.pad(self._rows, (0, 0, 0, 1))
        self._rows[-1] = rows[0]
        self._pairs.append((unsafe, safe))

    def nearest(self, prompt: str, count: int) -> list[Neighbour]:
        """Return at most `count` pairs, the nearest first."""
        if self._rows is None or not count:
            return []
        near = self._rows @ self._embedded([prompt])[0]  # (pairs,)
        similarity, at = near.topk(min(count, len(near)))
        return [
            Neighbour(of, *self._pairs[number])
            for of, number in zip(similarity.tolist(), at.tolist(), strict=True)
        ]

    def _embedded(self, prompts: Sequence[str]) -> Tensor:
        return F.normalize(self._model.embed(prompts), dim=1)  # (n, 384)


def sentence_model(user: str) -> SentenceModel:
    """Return the model that compares meanings.

    Args:
        user: what needs it, for the error.

    Raises:
        ValueError: if its package is not installed or does not load.
    """
    # late: ComfyUI lists the methods when it starts
    from ...evaluation.measures.sentences import MODULE, PACKAGE, find_sentences

    refuse_missing(Package(MODULE, PACKAGE), user)
    return find_sentences()


def nearest_rewriter(source: RewriteSource) -> Callable[[str], str | None]:
    """Return a rewriter that makes the change of the nearest pair whose changed words the prompt has too.

    Raises:
        ValueError: if the file of pairs is missing or holds none, or if the sentence model is not installed.
    """
    if source.paired_file is None:
        raise ValueError(
            "rewriting by the nearest pair needs a file: CoProV2's or Ring-A-Bell's CSV, or JSON lines."
        )
    pairs = read_halves(source.paired_file)
    neighbours = Neighbours(pairs, sentence_model("rewriting by the nearest pair"))

    def rewrite(prompt: str) -> str | None:
        for neighbour in neighbours.nearest(prompt, CANDIDATES):
            if neighbour.similarity >= LEAST and (safe := carried_over(neighbour, prompt)):
                return safe
        return None

    return rewrite


def carried_over(neighbour: Neighbour, prompt: str) -> str | None:
    """Make the change of words of a pair to another prompt.

    Returns:
        The prompt with every replaced run of words replaced, in its own case; None if it lacks one of them,
        or if the pair adds or removes words without replacing any.
    """
    before, after = neighbour.unsafe.split(), neighbour.safe.split()
    words = ([word.strip(",.;:!?").casefold() for word in text] for text in (before, after))
    changes = {}
    for kind, start, end, safe_start, safe_end in SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        removed, added = (
            " ".join(text).strip(",.;:!? ") for text in (before[start:end], after[safe_start:safe_end])
        )
        if not removed or not added:
            return None
        changes[removed] = added
    if not changes or not all(TermTable({term: "-"}).rewrite(prompt) for term in changes):
        return None
    return TermTable(changes).rewrite(prompt)
