"""Co-Merge: each output neuron is taken whole from the expert that is most active in it.

A re-implementation from the public description of AlignGuard (Liu et al. 2024, arXiv:2412.10493):
"find the expert with the highest activation across all inputs" and take "only the most active
weights of each expert". No merge code was published. Per output neuron, on |B A x| averaged over
tokens, winning by count, is our reading; what is uncertain is an option of `MergeConfig`.

In the order of the algorithm: `activity` (one input, all experts), `LayerStatistics` (all inputs),
`most_active` (the choice), `row_picked` (the merged LoRA).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..low_rank import LowRank, concatenate
from .layer import NO_WINNER, MergedLayer


def co_merge(parts: Sequence[LowRank], *, statistics: LayerStatistics, statistic: str) -> MergedLayer:
    """Merge the experts of one layer: choose each neuron's expert, then take its row.

    Args:
        parts: update of each expert, strength folded, all of shape (d_out, d_in).
        statistics: how active the same experts were in this layer.
        statistic: what "most active" means, see `most_active`.
    """
    winners = most_active(statistics, statistic)
    return MergedLayer(row_picked(parts, winners), winners)


def activity(inputs: Tensor, parts: Sequence[LowRank]) -> Tensor:
    """Measure how strongly each expert reacts in each neuron: s_e[i; p] = mean over tokens of |B_e A_e x|_i.

    All experts read the same input, that of the base model, so one pass of it serves them all.

    Args:
        inputs: what the Linear gets, (batch, tokens, d_in), fp32; one entry of the batch is one input p.
        parts: update of each expert, on the device of the inputs.

    Returns:
        Shape (num_experts, batch, d_out), fp32, >= 0.
    """
    down = torch.cat([part.down for part in parts])
    hidden = (inputs @ down.T).transpose(1, 2)  # (batch, sum of ranks, tokens): tokens last reduces fastest
    hidden = hidden.split([part.rank for part in parts], dim=1)
    means = [(part.up @ h).abs_().mean(-1) for part, h in zip(parts, hidden, strict=True)]  # (batch, d_out)
    return torch.stack(means)


@dataclass(frozen=True, eq=False)
class LayerStatistics:
    """How active the experts were in one layer over the inputs so far; each of shape (num_experts, d_out).

    Attributes:
        wins: number of inputs on which the expert was the most active one, int64. Experts that tie at
            the top all win, so their order does not matter; where all are 0, none does.
        total: sum of the activities; ranks experts like their mean.
        peak: the largest activity on one input.
    """

    wins: Tensor
    total: Tensor
    peak: Tensor

    @classmethod
    def of(cls, activities: Tensor) -> LayerStatistics:
        """Count a batch of inputs, activities as `activity` returns them: (num_experts, batch, d_out)."""
        top = activities.amax(0)
        wins = (activities == top) & (top > 0)
        return cls(wins.sum(1), activities.sum(1), activities.amax(1))

    def plus(self, other: LayerStatistics) -> LayerStatistics:
        """Return the statistics of both sets of inputs together."""
        peak = torch.maximum(self.peak, other.peak)
        return LayerStatistics(self.wins + other.wins, self.total + other.total, peak)

    def to(self, device: str | torch.device) -> LayerStatistics:
        """Return the same on another device."""
        return LayerStatistics(self.wins.to(device), self.total.to(device), self.peak.to(device))


def most_active(statistics: LayerStatistics, statistic: str) -> Tensor:
    """Choose each neuron's expert: e*(i) = argmax_e of the statistic.

    Ties go to the larger mean activity, then to the lower index, so the choice is deterministic.

    Args:
        statistics: of this layer.
        statistic: `win_count`, `mean` or `max`.

    Returns:
        Index of the expert, or `NO_WINNER` where no expert was ever active, (d_out,) int64.
    """
    score = {"win_count": statistics.wins, "mean": statistics.total, "max": statistics.peak}[statistic]
    is_best = score == score.amax(0)  # (num_experts, d_out)
    tie_break = statistics.total.masked_fill(~is_best, -1)
    winners = tie_break.argmax(0)  # the first of equals
    return winners.masked_fill(statistics.peak.amax(0) == 0, NO_WINNER)


def row_picked(parts: Sequence[LowRank], winners: Tensor) -> LowRank:
    """Take row i of the merged update from expert winners[i]: delta[i, :] = B_e*(i)[i, :] A_e*(i).

    A choice of rows keeps the product form, so this is an ordinary LoRA and nothing is lost:
    A = all A_e stacked; B[i, block e] = B_e[i, :] if e = e*(i), else 0.

    Args:
        parts: update of each expert, all of shape (d_out, d_in).
        winners: see `most_active`; the row of a neuron without winner is zero.

    Returns:
        Shape (d_out, d_in), at the sum of the ranks; the block of an expert that won nothing is zero.
    """
    stacked = concatenate(parts)
    experts = torch.tensor([expert for expert, part in enumerate(parts) for _ in range(part.rank)])
    is_own = winners[:, None] == experts  # (d_out, sum of ranks)
    return LowRank(stacked.up.where(is_own, 0.0), stacked.down)
