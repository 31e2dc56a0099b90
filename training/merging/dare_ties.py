"""DARE-TIES: entries dropped as in DARE (arXiv:2311.03099), combined as in TIES (arXiv:2306.01708)."""

from collections.abc import Sequence

import torch

from ..experts.low_rank import LowRank
from .entrywise import elected_mean, keep_random
from .layer import MergedLayer


def dare_ties(
    parts: Sequence[LowRank], *, density: float, generators: Sequence[torch.Generator]
) -> MergedLayer:
    """Return, entry by entry, the mean of the thinned and rescaled updates that have the elected sign, dense.

    Args:
        parts: update of each expert, strength folded.
        density: share of each update's entries that is kept, in (0, 1].
        generators: one per part.
    """
    pairs = zip(parts, generators, strict=True)
    return MergedLayer(elected_mean([keep_random(part.delta(), density, own) for part, own in pairs]))
