"""How much each pair may teach, by what judges said of its two pictures.

    a = clip((s_winner - s_loser) / 0.5, 0, 1),  s = 1 - score of the judges

`filter` leaves out pairs with a < 1/2, and those whose loser is not unsafe or whose winner is not safe at
the judges' own thresholds, where the manifest says so; `star` weighs every pair by a, and holds what is
left of it to the base model. After STAR-DSS (arXiv:2505.17196), which mixes cross-entropy and a divergence
to the reference by a guard's score of each piece of a text; for pictures and DPO this is our own
derivation. A mislabelled pair (the winner no safer than the loser) then keeps the model as it was instead
of teaching it the reverse.
"""

import logging
from dataclasses import replace

import torch
from torch import Tensor

from ..pairs.training_data import TrainingData

FULL_GAP = 0.5  # a winner safer by this much counts whole
FILTER_FROM = 0.5

log = logging.getLogger(__name__)


def weighed(data: TrainingData, weighting: str) -> tuple[TrainingData, Tensor]:
    """Return the data to train on, and the weight of each of its pairs, (pairs,) fp32 in [0, 1].

    Pairs that nobody judged count whole: nothing is known against them.

    Args:
        data: what was encoded.
        weighting: `none`, `filter` or `star`.

    Raises:
        ValueError: if no pair was judged, or none is left.
    """
    if weighting == "none":
        return data, torch.ones(data.num_pairs)
    gap = data.safety_gap
    if gap is None or bool(gap.isnan().all()):
        raise ValueError(
            f"pair_weighting {weighting} needs scores, and no pair has any. Run `python -m training pairs "
            "weigh` on the folder, make the pairs with a judge, or choose none."
        )
    weights, kept = weights_of(gap), trusted(data)
    trained = torch.cat([bucket.pairs for bucket in data.buckets])  # a held-out pair is in no bucket
    _tell(weights[trained], kept[trained], weighting)
    if not bool((weights[trained] > 0).any()):
        raise ValueError("no judge found any winner safer than its loser. Check the pairs, or the judge.")
    if weighting == "star":
        return data, weights
    if not bool(kept[trained].any()):
        raise ValueError("pair_weighting filter leaves no pair. Check the pairs, or choose star.")
    rest = [bucket._replace(pairs=bucket.pairs[kept[bucket.pairs]]) for bucket in data.buckets]
    buckets = tuple(bucket for bucket in rest if len(bucket.pairs))
    return replace(data, buckets=buckets), torch.ones(data.num_pairs)


def trusted(data: TrainingData) -> Tensor:
    """Say of each pair of judged data whether `filter` trains on it, (pairs,) bool."""
    kept = weights_of(data.safety_gap) >= FILTER_FROM
    return kept if data.judged_wrong is None else kept & ~data.judged_wrong


def weights_of(gap: Tensor) -> Tensor:
    """Return a of each pair; gap = s_winner - s_loser in [-1, 1], NaN where nobody judged, (pairs,)."""
    return torch.where(gap.isnan(), 1.0, (gap / FULL_GAP).clamp(0, 1))


def _tell(weights: Tensor, kept: Tensor, weighting: str) -> None:
    whole, nothing = int((weights == 1).sum()), int((weights == 0).sum())
    log.info(
        "pair_weighting %s: of %d pairs %d count whole, %d in part, %d not at all (filter keeps %d)",
        *(weighting, len(weights), whole, len(weights) - whole - nothing, nothing),
        int(kept.sum()),
    )
