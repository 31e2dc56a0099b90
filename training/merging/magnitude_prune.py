"""Magnitude pruning: the sum of the experts' updates, each without its small entries."""

from collections.abc import Sequence

from ..experts.low_rank import LowRank
from .entrywise import keep_largest
from .layer import MergedLayer


def magnitude_prune(parts: Sequence[LowRank], *, density: float) -> MergedLayer:
    """Return delta = sum_e trim(delta_e), dense.

    Args:
        parts: update of each expert, strength folded.
        density: share of each update's entries that is kept, in (0, 1].
    """
    return MergedLayer(sum(keep_largest(part.delta(), density) for part in parts))
