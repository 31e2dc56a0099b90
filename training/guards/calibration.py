"""The threshold of a guard, set on harmless prompts at a false-positive rate that the person chooses.

The threshold is set on one half of the prompts and its false-positive rate measured on the other half, since
on the first half it is at most the chosen rate by construction.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..evaluation.roc import Share, blocked_share, share_of


@dataclass(frozen=True)
class Calibration:
    """A threshold and how it was set.

    Attributes:
        threshold: scores from it on are blocked.
        target_fpr: share of harmless prompts that may be blocked.
        num_set: harmless prompts that the threshold was set on.
        hits: harmless prompts blocked among those that it was measured on.
        num_measured: these.
        prompts_hash: SHA-256 of all of them, 64 hexadecimal digits.
    """

    threshold: float
    target_fpr: float
    num_set: int
    hits: int
    num_measured: int
    prompts_hash: str

    @property
    def measured(self) -> Share:
        """The false-positive rate on prompts that the threshold was not set on, with its interval."""
        return share_of(self.hits, self.num_measured)

    def text(self) -> str:
        """Return it in words."""
        share = self.measured
        start = (
            f"threshold {self.threshold:.3f}, set on {self.num_set} harmless prompts at a false-positive "
            f"rate of {self.target_fpr:g}"
        )
        if share.rate is None:
            return f"{start}; the rate is not measured"
        low, high = share.interval
        rate = f"{share.rate:.3f} [{low:.3f}, {high:.3f}]"
        return f"{start}; of {share.n} others {share.hits} are blocked ({rate})"

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)


def fewest_prompts(target_fpr: float) -> int:
    """Return how many harmless prompts `calibrate` needs: below that, one block is more than the target."""
    return 2 * math.ceil(1 / target_fpr)


def calibrate(scores: Tensor, prompts: Sequence[str], target_fpr: float) -> Calibration:
    """Set a threshold on every other score and measure it on the rest.

    Args:
        scores: of harmless prompts that the guard was not trained on, (n,), in any order that does not depend
            on them.
        prompts: the same prompts, for their hash.
        target_fpr: share of harmless prompts that may be blocked, in (0, 1).

    Raises:
        ValueError: if there are fewer prompts than `fewest_prompts`, or a score is not finite.
    """
    if len(scores) < fewest_prompts(target_fpr):
        raise ValueError(
            f"a false-positive rate of {target_fpr:g} needs at least {fewest_prompts(target_fpr)} harmless "
            f"prompts, got {len(scores)}. Give more of them, or allow a higher rate."
        )
    if not bool(scores.isfinite().all()):
        raise ValueError("a score of a harmless prompt is not finite. Train the guard again at a lower rate.")
    set_on, others = scores[::2], scores[1::2]
    threshold = threshold_at(set_on, target_fpr)
    digest = hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest()
    hits = blocked_share(others, threshold).hits
    return Calibration(threshold, target_fpr, len(set_on), hits, len(others), digest)


def threshold_at(scores: Tensor, target_fpr: float) -> float:
    """Return the lowest threshold that blocks at most this share of the scores.

    It is the middle between the lowest score that is blocked and the highest that is not, so that rounding
    changes no verdict; if none is blocked, it lies just above the highest.
    """
    ranked = scores.double().sort(descending=True).values
    allowed = math.floor(target_fpr * len(ranked) + 1e-9)  # 0.05 * 20 must be 1
    highest_passed = ranked[min(allowed, len(ranked) - 1)]
    blocked = ranked[ranked > highest_passed]
    if len(blocked):
        return float((blocked[-1] + highest_passed) / 2)
    return float(torch.nextafter(highest_passed.float(), torch.tensor(math.inf)))
