"""Co-Merge: take each output neuron whole from the expert that is most active in it.

A re-implementation from the public description of AlignGuard (Liu et al. 2024, arXiv:2412.10493):
"find the expert with the highest activation across all inputs" and take "only the most active
weights of each expert". No merge code was published. Our reading is: per output neuron, by |B A x| averaged
over tokens, the expert that wins the most inputs. What is uncertain is an option of `MergeConfig`.

In the order of the algorithm: `activity` (one input, all experts), `LayerStatistics` (all inputs),
`most_active` (the choice), `row_picked` (the merged LoRA). Two other readings of "weights" follow it:
`component_picked` (a weight is a rank neuron) and `rows_of_both_picked` (a weight is a row of A or of B).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..experts.low_rank import LowRank, concatenate
from .layer import NO_WINNER, MergedLayer

# Elements of one intermediate result: 4 MB in fp32 stay in the cache, which is 5 times faster.
CHUNK = 2**20


def co_merge(
    parts: Sequence[LowRank], *, statistics: LayerActivity, statistic: str, level: str
) -> MergedLayer:
    """Merge the experts of one layer: choose each neuron's expert, then take its row.

    Args:
        parts: update of each expert, strength folded in, all of shape (d_out, d_in).
        statistics: activity of the same experts in this layer, at the same strengths.
        statistic: how "most active" is measured, see `most_active`.
        level: what a neuron is: `output neuron`, `rank neuron` or `rowpick_AB`.
    """
    winners = choose(statistics, statistic, level)
    if level == "rank neuron":
        return MergedLayer(component_picked(parts, winners), winners)
    if level == "rowpick_AB":
        rank_winners = most_active(statistics.ranks, statistic)
        return MergedLayer(rows_of_both_picked(parts, winners, rank_winners), winners)
    return MergedLayer(row_picked(parts, winners), winners)


def activity(inputs: Tensor, experts: Stacked) -> Tensor:
    """Measure how strongly each expert reacts in each neuron: s_e[i; p] = mean over tokens of |B_e A_e x|_i.

    All experts read the same input, that of the base model, so one pass of it serves them all. The activity
    of a rank neuron is the size of what it adds to the output, |A_e x|_j ||B_e[:, j]||, which does not depend
    on how a file divides the scale between A and B.

    Args:
        inputs: inputs of the Linear, (batch, tokens, d_in), fp32; each entry of the batch is one input p.
        experts: on the device of the inputs.

    Returns:
        Shape (num_experts, batch, d_out + rank), fp32, >= 0: the output neurons, then the rank neurons.
    """
    batch, tokens, _ = inputs.shape
    num_experts, rank, _ = experts.up.shape
    hidden = inputs.flatten(0, 1) @ experts.down.flatten(0, 1).T  # (batch * tokens, num_experts * rank)
    hidden = hidden.unflatten(1, (num_experts, rank)).transpose(0, 1).contiguous()
    neurons = max(1, CHUNK // (num_experts * batch * tokens))
    means = [
        (hidden @ up).abs_().unflatten(1, (batch, tokens)).mean(2)  # (num_experts, batch, some neurons)
        for up in experts.up.split(neurons, dim=2)
    ]
    ranks = hidden.abs_().unflatten(1, (batch, tokens)).mean(2) * experts.norms
    return torch.cat([*means, ranks], dim=2)


class Stacked(NamedTuple):
    """The experts of one layer as stacked tensors, padded with zeros to the largest rank.

    Attributes:
        up: B^T of each expert, (num_experts, rank, d_out).
        down: A of each expert, (num_experts, rank, d_in).
        norms: norms of the columns of B, (num_experts, 1, rank).
    """

    up: Tensor
    down: Tensor
    norms: Tensor

    @classmethod
    def of(cls, parts: Sequence[LowRank]) -> Stacked:
        """Stack the updates of one layer."""
        rank, pad = max(part.rank for part in parts), torch.nn.functional.pad
        up = torch.stack([pad(part.up.T, (0, 0, 0, rank - part.rank)) for part in parts])
        down = torch.stack([pad(part.down, (0, 0, 0, rank - part.rank)) for part in parts])
        return cls(up, down, up.norm(dim=2)[:, None])


class LayerActivity(NamedTuple):
    """Activity of the experts in the output neurons and in the rank neurons of one layer."""

    outputs: LayerStatistics
    ranks: LayerStatistics

    @classmethod
    def of(cls, counters: LayerStatistics, d_out: int) -> LayerActivity:
        """Split counters that are in the order of `activity`."""
        pairs = [counter.split([d_out, counter.shape[1] - d_out], dim=1) for counter in counters]
        return cls(*(LayerStatistics(*neurons) for neurons in zip(*pairs, strict=True)))

    def scaled(self, strengths: Sequence[float]) -> LayerActivity:
        """Return the activity at these strengths; the wins are not updated, see `input_record`."""
        return LayerActivity(self.outputs.scaled(strengths), self.ranks.scaled(strengths))

    def to(self, device: str | torch.device) -> LayerActivity:
        """Return a copy on another device."""
        return LayerActivity(self.outputs.to(device), self.ranks.to(device))


class LayerStatistics(NamedTuple):
    """Counters over the inputs so far, each of shape (num_experts, neurons).

    Attributes:
        wins: number of inputs on which the expert is the most active one, int64. All experts that tie at
            the top win, so their order does not matter; if all are 0, none wins.
        total: sum of the activities; it ranks experts as their mean does.
        peak: the largest activity on one input.
    """

    wins: Tensor
    total: Tensor
    peak: Tensor

    @classmethod
    def of(cls, activities: Tensor) -> LayerStatistics:
        """Count a batch of inputs, with activities as from `activity`: (num_experts, batch, neurons)."""
        return cls(num_wins(activities), activities.sum(1), activities.amax(1))

    def plus(self, other: LayerStatistics) -> LayerStatistics:
        """Return the counters over both sets of inputs."""
        peak = torch.maximum(self.peak, other.peak)
        return LayerStatistics(self.wins + other.wins, self.total + other.total, peak)

    def scaled(self, strengths: Sequence[float]) -> LayerStatistics:
        """Return the counters at these strengths; the wins are not updated."""
        factors = self.total.new_tensor(strengths)[:, None]
        return LayerStatistics(self.wins, self.total * factors, self.peak * factors)

    def to(self, device: str | torch.device) -> LayerStatistics:
        """Return a copy on another device."""
        return LayerStatistics(self.wins.to(device), self.total.to(device), self.peak.to(device))


def num_wins(activities: Tensor) -> Tensor:
    """Count the inputs that each expert wins, see `LayerStatistics`.

    Args:
        activities: (num_experts, inputs, neurons).

    Returns:
        Shape (num_experts, neurons), int64.
    """
    top = activities.amax(0)
    return ((activities == top) & (top > 0)).sum(1)


def choose(statistics: LayerActivity, statistic: str, level: str) -> Tensor:
    """Choose the expert of each output neuron, or of each rank neuron at level `rank neuron`."""
    return most_active(statistics.ranks if level == "rank neuron" else statistics.outputs, statistic)


def most_active(statistics: LayerStatistics, statistic: str) -> Tensor:
    """Choose the expert of each neuron: e*(i) = argmax_e of the statistic.

    Ties go to the larger mean activity, then to the lower index, so the choice is deterministic.

    Args:
        statistics: counters of this layer.
        statistic: `win_count`, `mean` or `max`.

    Returns:
        Index of the expert, or `NO_WINNER` if no expert was ever active, (neurons,) int64.
    """
    score = {"win_count": statistics.wins, "mean": statistics.total, "max": statistics.peak}[statistic]
    is_best = score == score.amax(0)  # (num_experts, neurons)
    tie_break = statistics.total.masked_fill(~is_best, -1)
    winners = tie_break.argmax(0)  # the first of equals
    return winners.masked_fill(statistics.peak.amax(0) == 0, NO_WINNER)


def row_picked(parts: Sequence[LowRank], winners: Tensor) -> LowRank:
    """Take row i of the merged update from expert winners[i]: delta[i, :] = B_e*(i)[i, :] A_e*(i).

    A choice of rows keeps the product form, so this is an exact, ordinary LoRA:
    A = all A_e stacked; B[i, block e] = B_e[i, :] if e = e*(i), else 0.

    Args:
        parts: update of each expert, all of shape (d_out, d_in).
        winners: see `most_active`; the row of a neuron without a winner is zero.

    Returns:
        Shape (d_out, d_in), at the sum of the ranks; the block of an expert that won nothing is zero.
    """
    stacked = concatenate(parts)
    experts = torch.tensor([expert for expert, part in enumerate(parts) for _ in range(part.rank)])
    is_winner = winners[:, None] == experts  # (d_out, sum of ranks)
    return LowRank(stacked.up.where(is_winner, 0.0), stacked.down)


def component_picked(parts: Sequence[LowRank], winners: Tensor) -> LowRank:
    """Take rank neuron j whole from expert winners[j]: delta = sum_j B_e*(j)[:, j] A_e*(j)[j, :].

    Exact, at the largest rank of any expert. Rank neurons compete by their position in the files, which is
    meaningful only if the experts started from the same A.

    Args:
        parts: update of each expert, all of shape (d_out, d_in).
        winners: expert of each position, (largest rank,).
    """
    up, down, _ = Stacked.of(parts)
    positions, experts = torch.arange(len(winners)), winners.clamp(min=0)
    has_winner = (winners != NO_WINNER).to(up)
    return LowRank(up[experts, positions].T * has_winner, down[experts, positions])


def rows_of_both_picked(parts: Sequence[LowRank], winners: Tensor, rank_winners: Tensor) -> LowRank:
    """Take rows of B and rows of A separately, "per weight" to the letter: B_e*(i)[i, j] A_f*(j)[j, :].

    This mixes the rank neurons of different experts, which is meaningful only if all started from the same A
    and A moved little; the merge warns if the files do not say that they did.

    Args:
        parts: update of each expert, all of shape (d_out, d_in).
        winners: expert of each row of B, (d_out,).
        rank_winners: expert of each row of A, (largest rank,).
    """
    up, down, _ = Stacked.of(parts)
    rows = up[winners.clamp(min=0), :, torch.arange(len(winners))]  # (d_out, rank)
    rows = rows.masked_fill((winners == NO_WINNER)[:, None], 0.0)
    return LowRank(rows, down[rank_winners.clamp(min=0), torch.arange(len(rank_winners))])
