"""Concat: the sum of the experts' updates, exact. Every expert acts at full strength, on every prompt."""

from collections.abc import Sequence

from ..experts.low_rank import LowRank, concatenate
from .layer import MergedLayer


def concat(parts: Sequence[LowRank]) -> MergedLayer:
    """Return delta = sum_e delta_e, at the sum of the ranks: the same as applying all experts at once.

    Args:
        parts: update of each expert, strength folded.
    """
    return MergedLayer(concatenate(parts))
