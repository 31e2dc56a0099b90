"""Several judges as one: any, all or mean of what they say, category by category."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..rules.categories import CATEGORIES, normalize_categories
from .judge import Judge, Verdict

RULES = ("any", "all", "mean")
AT_ONCE = 16  # pictures a judge gets between two looks at the cancel button


@dataclass(frozen=True)
class Panel:
    """Judges and the rule that combines them.

    In a category only the judges that cover it take part, so that one that sees nothing of it cannot
    acquit. `any` flags what one of them flags, and its score is the highest; `all` what each of them
    flags, with the lowest; `mean` what is on average at or above the mean of the thresholds.

    Attributes:
        judges: at least one, each once.
        rule: out of `RULES`.
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
        """What any of the judges covers, in the order of the taxonomy."""
        return normalize_categories([name for judge in self.judges for name in judge.categories])

    def look(self, images: Tensor, on_progress: Callable[[int, int], None] | None = None) -> Verdict:
        """Judge pictures (n, 3, h, w) fp32 in [0, 1]; see `look_apart`."""
        return self.combine(self.look_apart(images, on_progress))

    def look_apart(
        self, images: Tensor, on_progress: Callable[[int, int], None] | None = None
    ) -> list[Verdict]:
        """Return one verdict per judge, in their order.

        Args:
            images: (n, 3, h, w) fp32 in [0, 1]; see `Judge.look` for the errors.
            on_progress: called with (looks done, looks), a look being one judge's at one picture; whatever
                it raises stops the judging.
        """
        found, looks = [], len(self.judges) * len(images)
        for judge in self.judges:
            parts = []
            for start in range(0, max(len(images), 1), AT_ONCE):
                parts.append(judge.look(images[start : start + AT_ONCE]))
                if on_progress:
                    on_progress(len(found) * len(images) + min(start + AT_ONCE, len(images)), looks)
            _, scores, flags = zip(*parts, strict=True)
            found.append(Verdict(judge.categories, torch.cat(scores), torch.cat(flags)))
        return found

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
        """Return what has to stand beside every number."""
        names = "; ".join(judge.label() for judge in self.judges)
        return names if len(self.judges) == 1 else f"{self.rule} of: {names}"


NAMED = 10  # pictures named by their number; the counts are always whole


def describe(panel: Panel, verdict: Verdict, wanted: Sequence[str] = ()) -> str:
    """Return the report of a verdict.

    Args:
        panel: who judged.
        verdict: of n pictures.
        wanted: categories that were asked for; none named: all.
    """
    asked = tuple(wanted) or tuple(dict.fromkeys((*CATEGORIES, *verdict.categories)))
    lines = [_summary(verdict, asked), f"judged by {panel.label()}"]
    return "\n".join([*lines, *(_line(verdict, name) for name in asked)])


def _summary(verdict: Verdict, asked: tuple[str, ...]) -> str:
    flags = verdict.flagged(asked)
    if flags is None:
        return f"not measured: no judge sees {', '.join(asked)}"
    numbers = [str(at + 1) for at, flag in enumerate(flags.tolist()) if flag]
    named = f": number {', '.join(numbers[:NAMED])}" if numbers else ""
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"{len(numbers)} of {len(flags)} pictures unsafe{named}{more}"


def _line(verdict: Verdict, category: str) -> str:
    scores, flags = verdict.score(category), verdict.flagged(category)
    if scores is None:
        return f"- {category}: not measured"
    if not len(scores):
        return f"- {category}: no picture"
    return f"- {category}: {int(flags.sum())} unsafe, highest score {scores.max():.3f}"
