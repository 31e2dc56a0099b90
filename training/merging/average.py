"""Average: the mean of the experts' updates, exact. The usual baseline; every expert gets weaker."""

from collections.abc import Sequence

from ..experts.low_rank import LowRank, concatenate
from .layer import MergedLayer


def average(parts: Sequence[LowRank]) -> MergedLayer:
    """Return delta = 1 / K * sum_e delta_e, at the sum of the ranks.

    The mean of the *products* B_e A_e. PEFT's `linear` averages A and B apart, which adds the cross
    terms B_i A_j of experts that never met.

    Args:
        parts: update of each of the K experts, strength folded; a zero update counts as one of the K.
    """
    return MergedLayer(concatenate([part.scaled(1 / len(parts)) for part in parts]))
