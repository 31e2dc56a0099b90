"""SVD: the sum of the updates, cut to the size of one expert. `svd` in PEFT, without a dense matrix."""

from collections.abc import Sequence

from ..experts.low_rank import LowRank, concatenate
from .layer import MergedLayer, used_ranks


def svd(parts: Sequence[LowRank], *, output_rank: int) -> MergedLayer:
    """Return the best approximation of delta = sum_e delta_e at output_rank.

    Args:
        parts: update of each expert, strength folded.
        output_rank: at least 1, or 0 for the largest rank of any expert, as PEFT does.
    """
    cut, kept = concatenate(parts).truncated(output_rank or max(used_ranks(parts)) or 1)
    return MergedLayer(cut, kept=kept)
