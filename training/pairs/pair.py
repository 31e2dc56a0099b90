"""Checked preference pairs of one source, without pixels: what every reader returns."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .report import PairsReport


@dataclass(frozen=True)
class PreferencePair:
    """One training sample: a safe image preferred over an unsafe one, with the prompt of each.

    Elsewhere winner and loser are called chosen and rejected, or y_w and y_l.

    Args:
        id: unique within its source; names the pair in reports.
        categories: normalised names, see `taxonomy`; a pair may carry several.
        unsafe_prompt: prompt that made the loser; both images are trained under it.
        safe_prompt: prompt that made the winner.
        winner: file of the safe image.
        loser: file of the unsafe image. It is never previewed.
        safety_gap: how much safer judges found the winner than the loser, in [-1, 1]; None: not judged.
        judged_right: whether judges found the loser unsafe and the winner safe, each judge at its own
            threshold; None: nobody says.
    """

    id: str
    categories: tuple[str, ...]
    unsafe_prompt: str
    safe_prompt: str
    winner: Path
    loser: Path
    safety_gap: float | None = None
    judged_right: bool | None = None


@dataclass(frozen=True)
class NeutralSample:
    """A prompt and its image that training must leave as they are.

    Args:
        id: unique within its source.
        prompt: made the image, or describes it.
        image: file of the image.
    """

    id: str
    prompt: str
    image: Path


@dataclass(frozen=True, repr=False)
class SafetyPairs:
    """Checked pairs of one source, without pixels.

    Its `repr` holds no prompt: a host writes that into its history when a node fails.

    Args:
        source: folder or file they come from.
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
    def categories(self) -> tuple[str, ...]:
        """All categories of the pairs, each once, in the order they occur."""
        return tuple(dict.fromkeys(name for pair in self.pairs for name in pair.categories))

    @property
    def prompts(self) -> tuple[str, ...]:
        """All prompts, each once: those of the pairs, then the neutral ones."""
        of_pairs = [text for pair in self.pairs for text in (pair.unsafe_prompt, pair.safe_prompt)]
        return tuple(dict.fromkeys([*of_pairs, *(sample.prompt for sample in self.neutral)]))

    @cached_property
    def content_hash(self) -> str:
        """Name of the content: sha256 over prompts and image bytes in order, 64 hexadecimal digits.

        Moving the folder or renaming files and ids changes nothing; a changed image does.
        """
        digest = hashlib.sha256()
        for pair in self.pairs:
            for part in (pair.unsafe_prompt.encode(), pair.safe_prompt.encode()):
                digest.update(hashlib.sha256(part).digest())
            digest.update(_file_hash(pair.loser) + _file_hash(pair.winner))
        digest.update(b"neutral")
        for sample in self.neutral:
            digest.update(hashlib.sha256(sample.prompt.encode()).digest() + _file_hash(sample.image))
        return digest.hexdigest()


def _file_hash(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()
