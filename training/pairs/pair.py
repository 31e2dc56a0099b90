"""Preference pairs of one source, checked and without pixels: what `load_pairs` returns."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..system.pictures import image_facts
from .report import PairsReport


@dataclass(frozen=True)
class PreferencePair:
    """One training sample: a safe image preferred to an unsafe one, with the prompt of each.

    Other code calls winner and loser chosen and rejected, or y_w and y_l.

    Args:
        id: unique within its source; identifies the pair in reports.
        categories: normalised names, see `rules.categories`; a pair may carry several.
        unsafe_prompt: the prompt that made the loser; both images are trained under it.
        safe_prompt: the prompt that made the winner.
        winner: file of the safe image.
        loser: file of the unsafe image. It is never previewed.
        safety_gap: how much safer judges found the winner than the loser, in [-1, 1]; None: not judged.
        judged_right: whether judges found the loser unsafe and the winner safe, each judge at its own
            threshold; None: not judged.
        cost_gap: how much more the loser costs than the winner, see `read_cost_gap`; None: not known.
        quality_gap: how much better the winner is, see `read_quality_gap`; None: not known.
    """

    id: str
    categories: tuple[str, ...]
    unsafe_prompt: str
    safe_prompt: str
    winner: Path
    loser: Path
    safety_gap: float | None = None
    judged_right: bool | None = None
    cost_gap: float | None = None
    quality_gap: float | None = None


@dataclass(frozen=True)
class NeutralSample:
    """A prompt and its image that training must leave as they are.

    Args:
        id: unique within its source.
        prompt: the prompt that made the image, or describes it.
        image: file of the image.
    """

    id: str
    prompt: str
    image: Path


@dataclass(frozen=True, repr=False)
class SafetyPairs:
    """Checked pairs and neutral samples of one source.

    Its `repr` contains no prompt, because a host writes it into its history when a node fails.

    Args:
        source: the folder or file they come from.
        pairs: in the order of the manifest.
        neutral: likewise; may be empty.
        report: what became of each row.
    """

    source: Path
    pairs: tuple[PreferencePair, ...]
    neutral: tuple[NeutralSample, ...]
    report: PairsReport

    def __repr__(self) -> str:
        return f"SafetyPairs({self.source.name}, {len(self.pairs)} pairs, {len(self.neutral)} neutral)"

    @property
    def prompt_pairs(self) -> list[tuple[str, str]]:
        """The unsafe and the safe prompt of each pair."""
        return [(pair.unsafe_prompt, pair.safe_prompt) for pair in self.pairs]

    @property
    def categories(self) -> tuple[str, ...]:
        """All categories of the pairs, each once, in the order they occur."""
        return tuple(dict.fromkeys(name for pair in self.pairs for name in pair.categories))

    @property
    def prompts(self) -> tuple[str, ...]:
        """All prompts, each once: those of the pairs, then the neutral ones."""
        pair_prompts = [text for pair in self.pairs for text in (pair.unsafe_prompt, pair.safe_prompt)]
        return tuple(dict.fromkeys([*pair_prompts, *(sample.prompt for sample in self.neutral)]))

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 over prompts and image bytes in order, 64 hexadecimal digits.

        It stays the same when the folder is moved or files and ids are renamed; it changes with any image.
        """
        digest = hashlib.sha256()
        for pair in self.pairs:
            for prompt in (pair.unsafe_prompt, pair.safe_prompt):
                digest.update(hashlib.sha256(prompt.encode()).digest())
            digest.update(image_facts(pair.loser).digest + image_facts(pair.winner).digest)
        digest.update(b"neutral")
        for sample in self.neutral:
            digest.update(hashlib.sha256(sample.prompt.encode()).digest() + image_facts(sample.image).digest)
        return digest.hexdigest()


def joined(sources: Sequence[SafetyPairs]) -> SafetyPairs:
    """Return the pairs and neutral samples of several sources as one; it is named after the first.

    Raises:
        ValueError: if there is no source.
    """
    if not sources:
        raise ValueError("there are no pairs. Name at least one folder of pairs.")
    pairs = tuple(pair for source in sources for pair in source.pairs)
    neutral = tuple(sample for source in sources for sample in source.neutral)
    return SafetyPairs(sources[0].source, pairs, neutral, PairsReport(len(pairs), neutral=len(neutral)))
