"""The merged update of one layer, as a method returns it and at the rank that was asked for."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..experts.low_rank import LowRank, approximate

NO_WINNER = -1  # a dead neuron: no expert ever reacts in it


class MergedLayer(NamedTuple):
    """The merged update of one Linear.

    Attributes:
        update: a LowRank of any rank, or a dense (d_out, d_in) matrix if the method destroys low rank.
        winners: index of the expert that each output neuron was taken from, or `NO_WINNER`, (d_out,) int64;
            None if the method mixes experts.
        kept: share of the squared norm that the method itself kept, in [0, 1].
    """

    update: LowRank | Tensor
    winners: Tensor | None = None
    kept: float = 1.0


def as_low_rank(merged: MergedLayer, parts: Sequence[LowRank], output_rank: int) -> tuple[LowRank, float]:
    """Bring a merged layer to the output rank.

    Args:
        merged: result of the method.
        parts: the updates it was made from.
        output_rank: at least 1; or 0, which keeps the rank of a low-rank update and gives a dense one the
            rank of all parts together.

    Returns:
        The update without rank components that are zero, and the share of the squared norm it keeps.
    """
    if isinstance(merged.update, Tensor):
        return approximate(merged.update, output_rank or sum(used_ranks(parts)) or 1)
    update = drop_zero_components(merged.update)
    cut, kept = update.truncated(output_rank) if output_rank else (update, 1.0)
    return cut, merged.kept * kept


def used_ranks(parts: Sequence[LowRank]) -> list[int]:
    """Return the number of rank components of each part that are not zero."""
    return [int(_is_used(part).sum()) for part in parts]


def rows_won(winners: Tensor, num_experts: int) -> list[int]:
    """Return how many output neurons each expert won; a neuron without a winner is not counted."""
    return torch.bincount(winners - NO_WINNER, minlength=num_experts + 1)[1:].tolist()


def drop_zero_components(update: LowRank) -> LowRank:
    """Drop rank components that add nothing, which is exact; if all are zero, keep one."""
    is_used = _is_used(update)
    if bool(is_used.all()):
        return update
    is_used[0] |= not bool(is_used.any())
    return LowRank(update.up[:, is_used], update.down[is_used])


def _is_used(update: LowRank) -> Tensor:
    return (update.up != 0).any(0) & (update.down != 0).any(1)  # (rank,)
