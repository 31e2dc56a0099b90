"""What a merge method gives back for one layer."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..low_rank import LowRank

NO_WINNER = -1  # a dead neuron: no expert ever reacts in it


class MergedLayer(NamedTuple):
    """The merged update of one Linear.

    Attributes:
        update: of any rank; components that are zero are dropped by `merge_experts`.
        winners: index of the expert each output neuron was taken from, or `NO_WINNER`, (d_out,) int64;
            None where experts are mixed.
    """

    update: LowRank
    winners: Tensor | None = None


def rows_won(winners: Tensor, num_experts: int) -> list[int]:
    """Return how many output neurons each expert won; those without a winner are in none of the counts."""
    return torch.bincount(winners - NO_WINNER, minlength=num_experts + 1)[1:].tolist()


def drop_zero_components(update: LowRank) -> LowRank:
    """Drop rank components that add nothing; exact, and one is kept where all of them are zero."""
    used = (update.up != 0).any(0) & (update.down != 0).any(1)  # (rank,)
    if bool(used.all()):
        return update
    used[0] |= not bool(used.any())
    return LowRank(update.up[:, used], update.down[used])
