"""What every judge of pictures is: a name, a threshold, the categories it covers, and scores in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..rules.categories import normalize_categories

Scorer = Callable[[Tensor], Tensor]  # images (n, 3, h, w) in [0, 1] -> scores (n, categories) in [0, 1]
Embed = Callable[[Tensor], Tensor]  # images (n, 3, h, w) in [0, 1] -> CLIP image embeddings (n, width)


class Verdict(NamedTuple):
    """What a judge, or several together, say of pictures.

    Attributes:
        categories: those that were measured, one per column; a category that is not here is not measured.
        scores: fp32 on the CPU, in [0, 1], 1 is unsafe, (n, len(categories)).
        flags: whether the score counts as unsafe, same shape.
    """

    categories: tuple[str, ...]
    scores: Tensor
    flags: Tensor

    def score(self, wanted: str | Iterable[str] = ()) -> Tensor | None:
        """Return the highest score over the wanted categories (none named: all), (n,); None: not measured."""
        columns = self._columns(wanted)
        return self.scores[:, columns].amax(dim=1) if columns else None

    def flagged(self, wanted: str | Iterable[str] = ()) -> Tensor | None:
        """Return whether any wanted category is flagged, (n,) bool; None: none of them is measured."""
        columns = self._columns(wanted)
        return self.flags[:, columns].any(dim=1) if columns else None

    def covers(self, wanted: str | Iterable[str]) -> bool:
        """Say whether every wanted category is measured."""
        return set(normalize_categories(wanted)).issubset(self.categories)

    def _columns(self, wanted: str | Iterable[str]) -> list[int]:
        names = normalize_categories(wanted) or self.categories
        return [self.categories.index(name) for name in names if name in self.categories]


@dataclass(frozen=True)
class Judge:
    """One judge, ready to look at pictures.

    Attributes:
        name: its key in `EVALUATORS`.
        version: of its package or weights.
        preset: which of its settings; part of every number it gives.
        threshold: a score from here on counts as unsafe, in [0, 1].
        categories: what it can see, normalised names.
        scorer: images (n, 3, h, w) in [0, 1] to scores (n, len(categories)) in [0, 1].
    """

    name: str
    version: str
    preset: str
    threshold: float
    categories: tuple[str, ...]
    scorer: Scorer

    def look(self, images: Tensor) -> Verdict:
        """Judge pictures.

        Args:
            images: (n, 3, h, w) fp32 in [0, 1], RGB; n may be 0.

        Raises:
            ValueError: if the pictures have another shape.
            RuntimeError: if a score is not in [0, 1].
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"pictures must have shape (n, 3, h, w), got {tuple(images.shape)}.")
        shape = (len(images), len(self.categories))
        if not len(images):
            return self.read(torch.zeros(shape))
        with torch.no_grad():
            scores = self.scorer(images.detach().to("cpu", torch.float32).clamp(0, 1))
        scores = scores.detach().to("cpu", torch.float32).reshape(shape)
        if not bool(((scores >= 0) & (scores <= 1)).all()):  # NaN included
            raise RuntimeError(f"the judge {self.name} gave a score that is not in [0, 1].")
        return self.read(scores)

    def read(self, scores: Tensor, share: float = 1.0) -> Verdict:
        """Return the verdict that scores (n, categories) make at a share of the threshold."""
        return Verdict(self.categories, scores, scores >= share * self.threshold)

    def label(self) -> str:
        """Return what has to stand beside every number: name, version, preset and threshold."""
        return f"{self.name} {self.version}, preset {self.preset}, threshold {self.threshold:g}"

    def at(self, threshold: float | None) -> Judge:
        """Return the same judge with another threshold; None leaves the preset's own.

        Raises:
            ValueError: if the threshold is not in (0, 1].
        """
        if threshold is None:
            return self
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be above 0 and at most 1, got {threshold:g}.")
        return replace(self, threshold=threshold)


class Parts(NamedTuple):
    """What a judge may need that is not in its package.

    Attributes:
        embed: pictures (n, 3, h, w) in [0, 1] to CLIP image embeddings (n, width).
        heads: folder of the weights of heads on them, `<judge>.safetensors`.
    """

    embed: Embed | None = None
    heads: Path | None = None


@dataclass(frozen=True)
class JudgeKind:
    """How a judge is made, and what it needs.

    Attributes:
        make: f(preset, parts) -> Judge.
        presets: names of its settings, the default first.
        licence: of code and weights.
        summary: what it sees, for people.
        needs_clip_vision: whether it works on CLIP image embeddings.
    """

    make: Callable[[str, Parts], Judge]
    presets: tuple[str, ...]
    licence: str
    summary: str
    needs_clip_vision: bool = False


def safety_of(verdict: Verdict, wanted: str | Iterable[str] = ()) -> Tensor | None:
    """Return 1 - score over the wanted categories, (n,): 1 is safe; None: not measured."""
    score = verdict.score(wanted)
    return None if score is None else 1 - score
