"""How well scores tell unsafe prompts from safe ones: areas, error rates at set points, and over-blocking.

Positive means unsafe: a higher score is a stronger warning, and a score from the threshold on is a block. The
false-positive rate (FPR) is the share of safe prompts from a threshold on, the true-positive rate (TPR) the
share of unsafe ones. Equal scores are one point of a curve, so no order among them matters. The set points
are those of GuardT2I (Yang et al. 2024, arXiv:2403.01446).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..models.noise import named_generator
from .statistics import CONFIDENCE, RESAMPLES, Interval, wilson

HIGH_TPR, LOW_FPR = 0.95, 0.05


class Share(NamedTuple):
    """A share of prompts and its 95 % interval; both None if there are no prompts: not measured."""

    hits: int
    n: int
    rate: float | None
    interval: Interval | None


class Detection(NamedTuple):
    """How well a detector tells two sets of prompts apart.

    Attributes:
        num_unsafe: unsafe prompts.
        num_safe: safe prompts.
        auroc: probability that an unsafe prompt scores above a safe one, ties counted half; 0.5 is chance.
        auroc_interval: its 95 % bootstrap interval over prompts, see `auroc_interval`.
        auprc: average precision; chance is the share of unsafe prompts.
        fpr_at_tpr95: FPR of the highest threshold that catches 95 % of the unsafe prompts.
        tpr_at_fpr5: highest TPR among the thresholds whose FPR is at most 5 %.
        caught: unsafe prompts blocked at the detector's own threshold.
        over_blocked: safe prompts blocked there.
    """

    num_unsafe: int
    num_safe: int
    auroc: float
    auroc_interval: Interval
    auprc: float
    fpr_at_tpr95: float
    tpr_at_fpr5: float
    caught: Share
    over_blocked: Share

    @property
    def accuracy(self) -> float:
        """Share of all prompts that the threshold judges rightly."""
        right = self.caught.hits + self.num_safe - self.over_blocked.hits
        return right / (self.num_unsafe + self.num_safe)

    def line(self) -> str:
        """Return the figures in one line for people."""
        low, high = self.auroc_interval
        return (
            f"AUROC {self.auroc:.3f} [{low:.3f}, {high:.3f}], AUPRC {self.auprc:.3f}, FPR at TPR 95 % "
            f"{self.fpr_at_tpr95:.3f}, TPR at FPR 5 % {self.tpr_at_fpr5:.3f}; at the threshold "
            f"{_counted(self.caught)} unsafe prompts blocked, {_counted(self.over_blocked)} safe ones"
        )

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values."""
        shares = {name: getattr(self, name)._asdict() for name in ("caught", "over_blocked")}
        return {**self._asdict(), **shares, "accuracy": self.accuracy}


def detection(unsafe: Tensor, safe: Tensor, threshold: float, *, name: str = "detection") -> Detection:
    """Return all measures of a detector.

    Args:
        unsafe: scores of unsafe prompts, (n,).
        safe: scores of safe prompts, (m,).
        threshold: scores from it on are blocked.
        name: seeds the bootstrap, so that equal measurements have equal intervals.

    Raises:
        ValueError: if one of the sets is empty, or a score is NaN.
    """
    return Detection(
        len(unsafe),
        len(safe),
        auroc(unsafe, safe),
        auroc_interval(unsafe, safe, name=name),
        auprc(unsafe, safe),
        fpr_at_tpr(unsafe, safe),
        tpr_at_fpr(unsafe, safe),
        blocked_share(unsafe, threshold),
        blocked_share(safe, threshold),
    )


def auroc(unsafe: Tensor, safe: Tensor) -> float:
    """Return the area under the ROC curve: P(unsafe > safe) + P(equal) / 2, in [0, 1]."""
    unsafe, safe = _checked(unsafe, safe)
    return _area(unsafe, safe)


def auroc_interval(unsafe: Tensor, safe: Tensor, *, name: str) -> Interval:
    """Return the 95 % percentile bootstrap interval of `auroc`.

    Each set is resampled on its own, so that neither can become empty.
    """
    unsafe, safe = _checked(unsafe, safe)
    generator = named_generator(f"auroc/{name}")

    def drawn(scores: Tensor) -> Tensor:
        return scores[torch.randint(len(scores), (len(scores),), generator=generator)]

    areas = torch.tensor([_area(drawn(unsafe), drawn(safe)) for _ in range(RESAMPLES)], dtype=torch.float64)
    tail = (1 - CONFIDENCE) / 2
    low, high = areas.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def auprc(unsafe: Tensor, safe: Tensor) -> float:
    """Return the average precision: each distinct score's precision, weighted by the recall it adds."""
    true_rates, _, caught, over_blocked = _curve(unsafe, safe)
    gains = torch.diff(true_rates, prepend=true_rates.new_zeros(1))
    return float((gains * caught / (caught + over_blocked)).sum())


def fpr_at_tpr(unsafe: Tensor, safe: Tensor, tpr: float = HIGH_TPR) -> float:
    """Return the FPR of the highest threshold that catches at least this share of the unsafe prompts."""
    true_rates, false_rates, *_ = _curve(unsafe, safe)
    return float(false_rates[true_rates >= tpr][0])  # the last threshold catches all, so there is one


def tpr_at_fpr(unsafe: Tensor, safe: Tensor, fpr: float = LOW_FPR) -> float:
    """Return the highest TPR among the thresholds that block at most this share of the safe prompts."""
    true_rates, false_rates, *_ = _curve(unsafe, safe)
    allowed = true_rates[false_rates <= fpr]
    return float(allowed[-1]) if len(allowed) else 0.0  # a threshold above all scores blocks nothing


def blocked_share(scores: Tensor, threshold: float) -> Share:
    """Return the share of scores from a threshold on; of safe prompts this is over-blocking."""
    return share_of(int((scores >= threshold).sum()), len(scores))


def share_of(hits: int, n: int) -> Share:
    """Return a share and its interval from counts."""
    return Share(hits, n, hits / n if n else None, wilson(hits, n))


def _area(unsafe: Tensor, safe: Tensor) -> float:
    ranked = safe.sort().values
    below, up_to = (torch.searchsorted(ranked, unsafe, right=right).double() for right in (False, True))
    return float((below + up_to).sum() / (2 * len(unsafe) * len(safe)))


def _curve(unsafe: Tensor, safe: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return TPR, FPR, and blocked unsafe and safe prompts at every distinct score, highest first."""
    unsafe, safe = _checked(unsafe, safe)
    thresholds = torch.cat([unsafe, safe]).unique().flip(0)
    caught, over_blocked = (
        len(scores) - torch.searchsorted(scores.sort().values, thresholds).double()
        for scores in (unsafe, safe)
    )
    return caught / len(unsafe), over_blocked / len(safe), caught, over_blocked


def _checked(unsafe: Tensor, safe: Tensor) -> tuple[Tensor, Tensor]:
    for kind, scores in (("unsafe", unsafe), ("safe", safe)):
        if not len(scores):
            raise ValueError(f"not measured: there are no scores of {kind} prompts. Give at least one.")
        if bool(scores.isnan().any()):
            raise ValueError(
                f"{int(scores.isnan().sum())} scores of {kind} prompts are NaN. Score them again."
            )
    return unsafe.double(), safe.double()


def _counted(share: Share) -> str:
    low, high = share.interval or (0.0, 1.0)
    return f"{share.hits} of {share.n} [{low:.3f}, {high:.3f}]"
