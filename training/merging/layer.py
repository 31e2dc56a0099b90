"""What a merge method gives back for one layer."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..experts.low_rank import LowRank, approximate

NO_WINNER = -1  # a dead neuron: no expert ever reacts in it


class MergedLayer(NamedTuple):
    """The merged update of one Linear.

    Attributes:
        update: of any rank, or a dense (d_out, d_in) matrix where the method leaves no low rank.
        winners: index of the expert each output neuron was taken from, or `NO_WINNER`, (d_out,) int64;
            None where experts are mixed.
        kept: share of the squared norm that the method itself left of what it merged, in [0, 1].
    """

    update: LowRank | Tensor
    winners: Tensor | None = None
    kept: float = 1.0


def as_low_rank(merged: MergedLayer, parts: Sequence[LowRank], output_rank: int) -> tuple[LowRank, float]:
    """Bring what a method gave to the rank that was asked for.

    Args:
        merged: as the method returned it.
        parts: what it was made from.
        output_rank: at least 1; or 0, which keeps a low-rank update as it is and gives a dense one the
            rank of all parts together.

    Returns:
        The update without components that are zero, and the share of the squared norm it keeps.
    """
    if isinstance(merged.update, Tensor):
        return approximate(merged.update, output_rank or sum(used_ranks(parts)) or 1)
    update = drop_zero_components(merged.update)
    cut, kept = update.truncated(output_rank) if output_rank else (update, 1.0)
    return cut, merged.kept * kept


def used_ranks(parts: Sequence[LowRank]) -> list[int]:
    """Return the number of rank components of each part that are not zero."""
    return [int(_used(part).sum()) for part in parts]


def rows_won(winners: Tensor, num_experts: int) -> list[int]:
    """Return how many output neurons each expert won; those without a winner are in none of the counts."""
    return torch.bincount(winners - NO_WINNER, minlength=num_experts + 1)[1:].tolist()


def drop_zero_components(update: LowRank) -> LowRank:
    """Drop rank components that add nothing; exact, and one is kept where all of them are zero."""
    used = _used(update)
    if bool(used.all()):
        return update
    used[0] |= not bool(used.any())
    return LowRank(update.up[:, used], update.down[used])


def _used(update: LowRank) -> Tensor:
    return (update.up != 0).any(0) & (update.down != 0).any(1)  # (rank,)
