"""How much each pair counts, by the judges' scores of its two images.

    a = clip((s_winner - s_loser) / 0.5, 0, 1),  s = 1 - the judges' score

`filter` leaves out pairs with a < 1/2, and, where the manifest says so, pairs whose loser is not unsafe or
whose winner is not safe at the judges' own thresholds. `star` weighs every pair by a, and keeps the rest of
its weight at the base model. After STAR-DSS (arXiv:2505.17196), which mixes cross-entropy and a divergence
to the reference by a guard's score of each piece of a text; our own derivation for images and DPO. One
weight for a whole pair is the form that STAR-DSS calls static. Its dynamic form would weigh parts of an
image and is not built. A mislabelled pair (its winner no safer than its loser) then keeps the model as it
was instead of teaching it the reverse.

`relabel` and `soft` go by a composite reward instead, after the idea of SC-DPO (arXiv:2504.14290), of which
only the abstract was available to us:

    R = quality - cost_weight * cost,  gap = R(winner) - R(loser)

`relabel` makes the picture with the larger R the winner and leaves out pairs whose gap is a tie. `soft` keeps
the pictures and gives the loss the probability that the winner is better, sigmoid(gap), which is exact if
preferences follow Bradley and Terry's model with R as strength (a cost is a logit, so the temperature is 1).
Both are our reading.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import torch
from torch import Tensor

from ..pairs.training_data import TrainingData

FULL_GAP = 0.5  # a pair whose winner is safer by this much has weight 1
FILTER_FROM = 0.5  # smallest weight that `filter` trains on
TIE = 0.05  # of the root mean square gap: `relabel` leaves out pairs whose gap is smaller, our choice
BY_REWARD = ("relabel", "soft")

log = logging.getLogger(__name__)


def weighed(data: TrainingData, weighting: str, cost_weight: float = 1.0) -> tuple[TrainingData, Tensor]:
    """Return the data to train on, and the weight of each of its pairs, (pairs,) fp32 in [0, 1].

    Pairs without scores have weight 1: nothing is known against them.

    Args:
        data: all pairs.
        weighting: `none`, `filter`, `star`, `relabel` or `soft`; of `soft` the weight is the probability that
            the winner is better.
        cost_weight: of the cost in the composite reward.

    Raises:
        ValueError: if no pair has scores, or no pair is left.
    """
    if weighting == "none":
        return data, torch.ones(data.num_pairs)
    if weighting in BY_REWARD:
        gap = reward_gap(data, cost_weight)
        if weighting == "soft":
            return data, torch.where(gap.isnan(), 1.0, gap.sigmoid())
        return _relabelled(data, gap), torch.ones(data.num_pairs)
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
    return _only(data, is_trusted), torch.ones(data.num_pairs)


def trusted(data: TrainingData) -> Tensor:
    """Return whether `filter` trains on each pair of judged data, (pairs,) bool."""
    is_trusted = weights_of(data.safety_gap) >= FILTER_FROM
    return is_trusted if data.judged_wrong is None else is_trusted & ~data.judged_wrong


def reward_gap(data: TrainingData, cost_weight: float) -> Tensor:
    """Return R(winner) - R(loser) of each pair, NaN where neither cost nor quality is known, (pairs,).

    Raises:
        ValueError: if it is known of no pair.
    """
    gaps = [
        torch.full((data.num_pairs,), torch.nan) if gap is None else gap
        for gap in (data.quality_gap, data.cost_gap)
    ]
    quality, cost = gaps
    gap = quality.nan_to_num(nan=0.0) + cost_weight * cost.nan_to_num(nan=0.0)
    is_known = ~(quality.isnan() & cost.isnan())
    if not bool(is_known.any()):
        raise ValueError(
            "pair_weighting relabel and soft need costs, and no pair has any. Run `python -m training pairs "
            "weigh FOLDER --cost FILE`, or choose none."
        )
    return torch.where(is_known, gap, torch.nan)


def _relabelled(data: TrainingData, gap: Tensor) -> TrainingData:
    """Return the data with the better picture of each pair as its winner, without the ties."""
    trained = torch.cat([bucket.pairs for bucket in data.buckets])  # held-out pairs are in no bucket
    spread = gap[~gap.isnan()].square().mean().sqrt()
    is_tie, is_worse = gap.abs() < TIE * spread, gap < 0  # neither where the gap is NaN
    log.info(
        "pair_weighting relabel: of %d pairs, %d change sides, %d are ties and left out, %d have no score",
        *(len(trained), int((is_worse & ~is_tie)[trained].sum()), int(is_tie[trained].sum())),
        int(gap[trained].isnan().sum()),
    )
    if bool(is_tie[trained].all()):
        raise ValueError("pair_weighting relabel leaves no pair: every gap is a tie. Check the scores.")
    return _only(data.exchanged(is_worse), ~is_tie)


def _only(data: TrainingData, is_trained: Tensor) -> TrainingData:
    """Return the data without the pairs that are not trained on, (pairs,) bool; held-out pairs stay."""
    left = [bucket._replace(pairs=bucket.pairs[is_trained[bucket.pairs]]) for bucket in data.buckets]
    return replace(data, buckets=tuple(bucket for bucket in left if len(bucket.pairs)))


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
