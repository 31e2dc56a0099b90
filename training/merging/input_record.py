"""Who wins an input at other strengths, without the base model: what is kept of every input for that.

An expert's activity is proportional to its strength, but who is the most active must be known input by
input. To keep the activities would take 17 GB for seven experts on SDXL (32 prompts a category at four
timesteps), the tokens behind them 10 GB at rank 4. What is kept is 0.14 GB: the second moments of each
expert's hidden values. They give the root mean square of an output neuron over an input's tokens; brought
to the known sum of its mean absolute values over all inputs, that stands for these.

On the mini model (seven experts of rank 4, unequal strengths) 0.985 to 0.994 of the choices, weighted by the
norms of their rows, are those of all activities; those of two halves of the inputs agree on 0.93 to 0.96.
Of merges of two and three such experts, cut to 8 components, 0.992 to 0.994. Eight tokens an input instead
of the moments, three times the memory, chose alike on 0.84 only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..experts.low_rank import LowRank
from .co_merge import LayerActivity, LayerStatistics, Stacked, num_wins

_MOST_COMPONENTS = 8  # of an expert: 36 numbers an input, where rank 64 would have 2080
_AT_ONCE = 2**20  # elements of one intermediate result, see `co_merge`


class RecordedActivity(NamedTuple):
    """Activity in one layer at strength 1, with what recounts the wins at other strengths.

    Attributes:
        outputs: as in `LayerActivity`.
        ranks: as in `LayerActivity`.
        record: of the same inputs.
    """

    outputs: LayerStatistics
    ranks: LayerStatistics
    record: InputRecord

    def at(self, strengths: Sequence[float], parts: Sequence[LowRank]) -> LayerActivity:
        """Return the activity at some strengths.

        Args:
            strengths: one per expert, > 0; equal ones leave the wins as they were counted.
            parts: update of each expert in this layer at strength 1.
        """
        scaled = LayerActivity(self.outputs, self.ranks).scaled(strengths)
        if len(set(strengths)) == 1:
            return scaled
        weights = self.outputs.total.new_tensor(strengths)[:, None, None]
        outputs = _output_wins(self.record.moments, parts, self.outputs.total, weights)
        ranks = num_wins(self.record.ranks * weights)
        return LayerActivity(
            scaled.outputs._replace(wins=outputs),
            scaled.ranks._replace(wins=ranks) if self.record.has_ranks else scaled.ranks,
        )


class InputRecord(NamedTuple):
    """What is kept of the inputs of one layer.

    Attributes:
        moments: mean over tokens of z z^T with z = A x, its upper triangle row by row; shape
            (num_experts, inputs, q (q + 1) / 2) for q components, see `strongest`.
        ranks: activity of the rank neurons, (num_experts, inputs, rank); of no rank where none is taken.
    """

    moments: Tensor
    ranks: Tensor

    @property
    def has_ranks(self) -> bool:
        """Whether wins of rank neurons can be recounted."""
        return self.ranks.shape[2] > 0

    @classmethod
    def join(cls, records: Sequence[InputRecord]) -> InputRecord:
        """Return the record of all their inputs, on the CPU."""
        return cls(*(torch.cat(tensors, dim=1).to("cpu") for tensors in zip(*records, strict=True)))


def strongest(parts: Sequence[LowRank]) -> Stacked:
    """Stack what is recorded of each expert: all of it, or of a higher rank its strongest components.

    Always on the CPU: the pass and a later merge must agree on the components and on their signs.
    """
    own = [LowRank(part.up.cpu(), part.down.cpu()) for part in parts]
    return Stacked.of([part.truncated(_MOST_COMPONENTS)[0] for part in own])


def second_moments(inputs: Tensor, down: Tensor) -> Tensor:
    """Return the moments of a batch of inputs, see `InputRecord`.

    Args:
        inputs: what the Linear gets, (batch, tokens, d_in), fp32.
        down: of `strongest`, (num_experts, q, d_in), on the device of the inputs.
    """
    hidden = (inputs @ down.flatten(0, 1).T).unflatten(2, down.shape[:2]).permute(2, 0, 3, 1)
    moments = hidden @ hidden.transpose(2, 3) / inputs.shape[1]  # (num_experts, batch, q, q)
    rows, columns = torch.triu_indices(*moments.shape[2:])
    return moments[..., rows, columns]


def _output_wins(moments: Tensor, parts: Sequence[LowRank], totals: Tensor, weights: Tensor) -> Tensor:
    """Count the inputs on which each output neuron of each expert is the most active, (num_experts, d_out).

    Row b of B answers with mean square b^T C b, a sum over the pairs of the triangle.
    """
    up = strongest(parts).up  # (num_experts, q, d_out)
    rows, columns = torch.triu_indices(up.shape[1], up.shape[1])
    pairs = up[:, rows] * up[:, columns] * torch.where(rows == columns, 1.0, 2.0)[:, None]
    neurons = max(1, _AT_ONCE // (moments.shape[0] * moments.shape[1]))
    counted = []
    for some, total in zip(pairs.split(neurons, dim=2), totals.split(neurons, dim=1), strict=True):
        sizes = (moments @ some).clamp_(min=0).sqrt_()  # (num_experts, inputs, some neurons)
        sums = sizes.sum(1, keepdim=True)
        counted.append(num_wins(sizes * (weights * total[:, None] / sums.where(sums > 0, 1.0))))
    return torch.cat(counted, dim=1)
