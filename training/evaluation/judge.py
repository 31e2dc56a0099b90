"""A judge of images: a name, a threshold, the categories it covers, and scores in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..rules.categories import normalize_categories
from ..system.tensors import check_finite
from .optional import Package

if TYPE_CHECKING:
    from .cost_model import CostModel

Scorer = Callable[[Tensor], Tensor]  # images (n, 3, h, w) in [0, 1] -> scores (n, categories) in [0, 1]
Embed = Callable[[Tensor], Tensor]  # images (n, 3, h, w) in [0, 1] -> CLIP image embeddings (n, width)


class Verdict(NamedTuple):
    """Scores and flags of images, from one judge or several together.

    Attributes:
        categories: the measured categories, one per column; any other category is not measured.
        scores: fp32 on the CPU, in [0, 1], 1 is unsafe, (n, len(categories)).
        flags: whether the score counts as unsafe, same shape.
    """

    categories: tuple[str, ...]
    scores: Tensor
    flags: Tensor

    def score(self, wanted: str | Iterable[str] = ()) -> Tensor | None:
        """Return the highest score over the wanted categories, (n,); None if none of them is measured.

        Args:
            wanted: category or categories; empty for all.
        """
        columns = self._columns(wanted)
        return self.scores[:, columns].amax(dim=1) if columns else None

    def flagged(self, wanted: str | Iterable[str] = ()) -> Tensor | None:
        """Return whether any wanted category is flagged, (n,) bool; None if none of them is measured.

        Args:
            wanted: category or categories; empty for all.
        """
        columns = self._columns(wanted)
        return self.flags[:, columns].any(dim=1) if columns else None

    def unsafe_categories(self, wanted: str | Iterable[str] = ()) -> tuple[str, ...]:
        """Return the measured categories for which an image is flagged.

        Args:
            wanted: category or categories; empty for all.
        """
        return tuple(self.categories[at] for at in self._columns(wanted) if bool(self.flags[:, at].any()))

    def covers(self, wanted: str | Iterable[str]) -> bool:
        """Return whether every wanted category is measured."""
        return set(normalize_categories(wanted)).issubset(self.categories)

    def _columns(self, wanted: str | Iterable[str]) -> list[int]:
        names = normalize_categories(wanted) or self.categories
        return [self.categories.index(name) for name in names if name in self.categories]


def safety_of(verdict: Verdict, wanted: str | Iterable[str] = ()) -> Tensor | None:
    """Return 1 - score over the wanted categories, (n,), where 1 is safe; None if none is measured."""
    score = verdict.score(wanted)
    return None if score is None else 1 - score


@dataclass(frozen=True)
class Judge:
    """One judge, ready to look at images.

    Attributes:
        name: its key in `EVALUATORS`.
        version: of its package or weights.
        preset: name of its settings; part of every number it gives.
        threshold: lowest score that counts as unsafe, in [0, 1].
        categories: the categories it covers, normalised names.
        scorer: images (n, 3, h, w) in [0, 1] to scores (n, len(categories)) in [0, 1].
    """

    name: str
    version: str
    preset: str
    threshold: float
    categories: tuple[str, ...]
    scorer: Scorer

    def look(self, images: Tensor) -> Verdict:
        """Judge images.

        Args:
            images: (n, 3, h, w) fp32 in [0, 1], RGB; n may be 0.

        Raises:
            ValueError: if the images have another shape, or values that are not finite.
            RuntimeError: if a score is not in [0, 1], naming its category and its picture.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"pictures must have shape (n, 3, h, w), got {tuple(images.shape)}.")
        check_finite(images, "the pictures to judge", "The model that drew them, or its VAE, is damaged.")
        shape = (len(images), len(self.categories))
        if not len(images):
            return self.read(torch.zeros(shape))
        with torch.no_grad():
            scores = self.scorer(images.detach().to("cpu", torch.float32).clamp(0, 1))
        scores = scores.detach().to("cpu", torch.float32).reshape(shape)
        self._check_scores(scores)
        return self.read(scores)

    def read(self, scores: Tensor, share: float = 1.0) -> Verdict:
        """Return the verdict for scores (n, categories), at a share of the threshold."""
        return Verdict(self.categories, scores, scores >= share * self.threshold)

    def _check_scores(self, scores: Tensor) -> None:
        wrong = ~((scores >= 0) & (scores <= 1))  # NaN included
        if bool(wrong.any()):
            picture, column = wrong.nonzero()[0].tolist()
            raise RuntimeError(
                f"the judge {self.name} gave picture {picture + 1} of {len(scores)} the score "
                f"{float(scores[picture, column]):g} for {self.categories[column]}, which is not in [0, 1]. "
                "Its weights are damaged; use another judge."
            )

    def label(self) -> str:
        """Return name, version, preset and threshold, which must stand beside every number."""
        return f"{self.name} {self.version}, preset {self.preset}, threshold {self.threshold:g}"

    def at(self, threshold: float | None) -> Judge:
        """Return the same judge with another threshold; None keeps the threshold of the preset.

        Raises:
            ValueError: if the threshold is not in (0, 1].
        """
        if threshold is None:
            return self
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be above 0 and at most 1, got {threshold:g}.")
        return replace(self, threshold=threshold)


class JudgeParts(NamedTuple):
    """What a judge may need beside its package.

    Attributes:
        embed: images (n, 3, h, w) in [0, 1] to CLIP image embeddings (n, width).
        heads: folder of the weights of heads on these embeddings, `<judge>.safetensors`.
        latents: images (n, 3, h, w) in [0, 1] to latents of a VAE (n, channels, h / 8, w / 8).
        cost: a trained safety cost model, in place of the file in `heads`.
    """

    embed: Embed | None = None
    heads: Path | None = None
    latents: Embed | None = None
    cost: CostModel | None = None


@dataclass(frozen=True)
class JudgeKind:
    """How a judge is made, and what it needs.

    Attributes:
        make: f(preset, parts) -> Judge.
        presets: names of its settings, the default first.
        licence: of code and weights.
        summary: what the judge sees, for people.
        package: module and PyPI name of the package that it needs; None: it needs none.
        needs_clip_vision: whether it works on CLIP image embeddings.
        lists_default_by_name: whether `judge_choices` lists the default preset by the judge's name alone,
            because saved graphs store it so: it was the only preset once.
    """

    make: Callable[[str, JudgeParts], Judge]
    presets: tuple[str, ...]
    licence: str
    summary: str
    package: Package | None = None
    needs_clip_vision: bool = False
    lists_default_by_name: bool = False

    def choices(self, name: str) -> list[str]:
        """Return the names by which people choose this judge and its presets."""
        presets = [f"{name}:{preset}" for preset in self.presets]
        return [name, *presets[1:]] if self.lists_default_by_name or len(presets) == 1 else presets
