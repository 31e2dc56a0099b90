"""TIES (Yadav et al. 2023, arXiv:2306.01708): trim, elect a sign, average those that agree with it."""

from collections.abc import Sequence

from ..experts.low_rank import LowRank
from .entrywise import elected_mean, keep_largest
from .layer import MergedLayer


def ties(parts: Sequence[LowRank], *, density: float) -> MergedLayer:
    """Return, entry by entry, the mean of the trimmed updates that have the elected sign, dense.

    Args:
        parts: update of each expert, strength folded.
        density: share of each update's entries that is kept, in (0, 1].
    """
    return MergedLayer(elected_mean([keep_largest(part.delta(), density) for part in parts]))
