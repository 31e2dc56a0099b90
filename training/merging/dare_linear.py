"""DARE (Yu et al. 2023, arXiv:2311.03099): drop entries at random, rescale the rest, and add."""

from collections.abc import Sequence

import torch

from ..experts.low_rank import LowRank
from .entrywise import keep_random
from .layer import MergedLayer


def dare_linear(
    parts: Sequence[LowRank], *, density: float, generators: Sequence[torch.Generator]
) -> MergedLayer:
    """Return delta = sum_e drop(delta_e) / density, dense.

    Args:
        parts: update of each expert, strength folded.
        density: share of each update's entries that is kept, in (0, 1].
        generators: one per part.
    """
    pairs = zip(parts, generators, strict=True)
    return MergedLayer(sum(keep_random(part.delta(), density, generator) for part, generator in pairs))
