"""How much each pair counts, by the judges' scores of its two images.

    a = clip((s_winner - s_loser) / 0.5, 0, 1),  s = 1 - the judges' score

`filter` leaves out pairs with a < 1/2, and, where the manifest says so, pairs whose loser is not unsafe or
whose winner is not safe at the judges' own thresholds. `star` weighs every pair by a, and keeps the rest of
its weight at the base model. After STAR-DSS (arXiv:2505.17196), which mixes cross-entropy and a divergence
to the reference by a guard's score of each piece of a text; our own derivation for images and DPO. One
weight for a whole pair is the form that STAR-DSS calls static. Its dynamic form would weigh parts of an
image and is not built. A mislabelled pair (its winner no safer than its loser) then keeps the model as it
was instead of teaching it the reverse.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import Tensor

from ..pairs.training_data import TrainingData

FULL_GAP = 0.5  # a pair whose winner is safer by this much has weight 1
FILTER_FROM = 0.5  # smallest weight that `filter` trains on

log = logging.getLogger(__name__)


def weighed(data: TrainingData, weighting: str) -> tuple[TrainingData, Tensor]:
    """Return the data to train on, and the weight of each of its pairs, (pairs,) fp32 in [0, 1].

    Pairs without scores have weight 1: nothing is known against them.

    Args:
        data: all pairs.
        weighting: `none`, `filter` or `star`.

    Raises:
        ValueError: if no pair has scores, or no pair is left.
    """
    if weighting == "none":
        return data, torch.ones(data.num_pairs)
    gap = data.safety_gap
    if gap is None or bool(gap.isnan().all()):
        raise ValueError(
            f"pair_weighting {weighting} needs scores, and no pair has any. Run `python -m training pairs "
            "weigh` on the folder, make the pairs with a judge, or choose none."
        )
    weights, is_trusted = weights_of(gap), trusted(data)
    trained = torch.cat([bucket.pairs for bucket in data.buckets])  # held-out pairs are in no bucket
    _log_counts(weights[trained], is_trusted[trained], weighting)
    if not bool((weights[trained] > 0).any()):
        raise ValueError("no judge found any winner safer than its loser. Check the pairs, or the judge.")
    if weighting == "star":
        return data, weights
    if not bool(is_trusted[trained].any()):
        raise ValueError("pair_weighting filter leaves no pair. Check the pairs, or choose star.")
    filtered = [bucket._replace(pairs=bucket.pairs[is_trusted[bucket.pairs]]) for bucket in data.buckets]
    buckets = tuple(bucket for bucket in filtered if len(bucket.pairs))
    return replace(data, buckets=buckets), torch.ones(data.num_pairs)


def trusted(data: TrainingData) -> Tensor:
    """Return whether `filter` trains on each pair of judged data, (pairs,) bool."""
    is_trusted = weights_of(data.safety_gap) >= FILTER_FROM
    return is_trusted if data.judged_wrong is None else is_trusted & ~data.judged_wrong


def weights_of(gap: Tensor) -> Tensor:
    """Return a of each pair; gap = s_winner - s_loser in [-1, 1], NaN without scores, (pairs,)."""
    return torch.where(gap.isnan(), 1.0, (gap / FULL_GAP).clamp(0, 1))


def _log_counts(weights: Tensor, is_trusted: Tensor, weighting: str) -> None:
    num_full, num_zero = int((weights == 1).sum()), int((weights == 0).sum())
    log.info(
        "pair_weighting %s: of %d pairs, %d count fully, %d in part, %d not at all (filter keeps %d)",
        *(weighting, len(weights), num_full, len(weights) - num_full - num_zero, num_zero),
        int(is_trusted.sum()),
    )
