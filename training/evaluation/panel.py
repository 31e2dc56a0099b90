"""Several judges as one, category by category."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..rules.categories import normalize_categories
from .judge import Judge, Verdict

RULES = ("any", "all", "mean")
AT_ONCE = 16  # images that a judge gets between two checks of the cancel button
OnLook = Callable[[int, int], None]  # (looks done, looks), one look per judge and image; may raise to cancel


@dataclass(frozen=True)
class Panel:
    """Judges and the rule that combines them.

    Judges that do not cover a category are ignored in it, so they cannot clear an image. `any` flags an image
    if one judge does, and takes the highest score; `all` flags it if every judge does, and takes the lowest;
    `mean` flags it if the mean score is at or above the mean of the thresholds.

    Attributes:
        judges: at least one, each once.
        rule: one of `RULES`.
    """

    judges: tuple[Judge, ...]
    rule: str = "any"

    def __post_init__(self) -> None:
        if not self.judges:
            raise ValueError("a panel needs at least one judge, got none.")
        if self.rule not in RULES:
            raise ValueError(f"combination must be one of {', '.join(RULES)}, got {self.rule!r}.")

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories that at least one judge covers, in the order of the taxonomy."""
        return normalize_categories([name for judge in self.judges for name in judge.categories])

    def look(self, images: Tensor, on_progress: OnLook | None = None) -> Verdict:
        """Judge images (n, 3, h, w) fp32 in [0, 1].

        Raises:
            ValueError: if the images have another shape.
            RuntimeError: if a score is not in [0, 1].
        """
        return self.combine(self.look_apart(images, on_progress))

    def look_apart(self, images: Tensor, on_progress: OnLook | None = None) -> list[Verdict]:
        """Judge images (n, 3, h, w) fp32 in [0, 1]; return one verdict per judge, in their order.

        Raises:
            ValueError: if the images have another shape.
            RuntimeError: if a score is not in [0, 1].
        """
        verdicts, looks = [], len(self.judges) * len(images)
        for judge in self.judges:
            parts = []
            for start in range(0, max(len(images), 1), AT_ONCE):
                parts.append(judge.look(images[start : start + AT_ONCE]))
                if on_progress:
                    on_progress(len(verdicts) * len(images) + min(start + AT_ONCE, len(images)), looks)
            _, scores, flags = zip(*parts, strict=True)
            verdicts.append(Verdict(judge.categories, torch.cat(scores), torch.cat(flags)))
        return verdicts

    def combine(self, verdicts: Sequence[Verdict], share: float = 1.0) -> Verdict:
        """Combine one verdict per judge, in their order, made at a share of their thresholds."""
        columns = [self._column(name, verdicts, share) for name in self.categories]
        scores, flags = zip(*columns, strict=True)
        return Verdict(self.categories, torch.stack(scores, dim=1), torch.stack(flags, dim=1))

    def _column(self, category: str, verdicts: Sequence[Verdict], share: float) -> tuple[Tensor, Tensor]:
        members = [
            (verdict.scores[:, at], verdict.flags[:, at], share * judge.threshold)
            for judge, verdict in zip(self.judges, verdicts, strict=True)
            for at, name in enumerate(verdict.categories)
            if name == category
        ]
        scores = torch.stack([score for score, _, _ in members])  # (judges, n)
        flags = torch.stack([flag for _, flag, _ in members])
        if self.rule == "any":
            return scores.amax(dim=0), flags.any(dim=0)
        if self.rule == "all":
            return scores.amin(dim=0), flags.all(dim=0)
        mean = scores.mean(dim=0)
        return mean, mean >= sum(threshold for _, _, threshold in members) / len(members)

    def label(self) -> str:
        """Return the judges and their rule, which must stand beside every number."""
        names = "; ".join(judge.label() for judge in self.judges)
        return names if len(self.judges) == 1 else f"{self.rule} of: {names}"
