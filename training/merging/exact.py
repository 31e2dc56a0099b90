"""Methods that combine the experts' updates exactly, by their factors: `average`, `concat` and `svd`.

`average` is the usual baseline; it weakens every expert. `concat` is the same as applying all experts at
once. `svd` is `concat`, cut to the rank of one expert. All take the parts of one layer, with strengths
folded in.
"""

from collections.abc import Sequence

from ..experts.low_rank import LowRank, concatenate
from .layer import MergedLayer, used_ranks


def average(parts: Sequence[LowRank]) -> MergedLayer:
    """Return delta = 1 / K * sum_e delta_e, at the sum of the ranks.

    This is the mean of the *products* B_e A_e. PEFT's `linear` averages A and B separately, which adds the
    cross terms B_i A_j of unrelated experts.

    Args:
        parts: update of each of the K experts; a zero update counts as one of the K.
    """
    return MergedLayer(concatenate([part.scaled(1 / len(parts)) for part in parts]))


def concat(parts: Sequence[LowRank]) -> MergedLayer:
    """Return delta = sum_e delta_e, at the sum of the ranks.

    Args:
        parts: update of each expert.
    """
    return MergedLayer(concatenate(parts))


def svd(parts: Sequence[LowRank], *, output_rank: int) -> MergedLayer:
    """Return the best approximation of delta = sum_e delta_e at output_rank.

    Args:
        parts: update of each expert.
        output_rank: at least 1, or 0 for the largest rank of any expert, as in PEFT.
    """
    cut, kept = concatenate(parts).truncated(output_rank or max(used_ranks(parts)) or 1)
    return MergedLayer(cut, kept=kept)
