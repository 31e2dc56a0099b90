"""The bank: the base model's errors on fixed draws, computed once and read from then on.

Training never changes these errors. Where every pair meets the same few draws in turn, see `fixed_draws`,
they cost one pass of the base model for each draw instead of one in every step.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class ReferenceErrors(NamedTuple):
    """The base model's errors on some pairs, under one prompt or both.

    The rows of a batch have the axes (winner or loser, prompt, pair), flattened. A pair of the bank has all
    of its errors in one row instead. This type is the only place that converts between the two.

    Attributes:
        by_pair: (pairs, 2 * prompts) fp32; the columns are the winner under each prompt, then the loser
            under each prompt.
    """

    by_pair: Tensor

    @classmethod
    def of_rows(cls, errors: Tensor, num_prompts: int) -> ReferenceErrors:
        """Arrange errors in the order of a batch's rows, (2 * prompts * pairs,)."""
        num_pairs = len(errors) // (2 * num_prompts)
        return cls(errors.view(2 * num_prompts, num_pairs).T)

    def in_rows(self) -> Tensor:
        """Return the errors in the order of a batch's rows, (2 * prompts * pairs,)."""
        return self.by_pair.T.reshape(-1)


class Bank:
    """The base model's errors on the fixed draws of every pair, as far as they are known.

    Args:
        num_pairs: pairs of the data.
        num_draws: fixed draws of each pair.
        num_prompts: prompts that each pair is seen under, 1 or 2.
        device: where the errors are kept. Which rows are known is kept on the CPU, so that asking for it
            does not wait for the device.
    """

    def __init__(self, num_pairs: int, num_draws: int, num_prompts: int, device: torch.device) -> None:
        shape = (num_pairs * num_draws, 2 * num_prompts)  # columns as in `ReferenceErrors`
        self.errors = torch.full(shape, math.nan, device=device)
        self._known_rows: dict[int, None] = {}  # in the order of arrival

    def __len__(self) -> int:
        return len(self._known_rows)

    def unknown(self, rows: Tensor) -> list[int]:
        """Return the places in `rows`, (pairs,) int64 on the CPU, whose errors are not known yet."""
        return [place for place, row in enumerate(rows.tolist()) if row not in self._known_rows]

    def read(self, rows: Tensor) -> ReferenceErrors:
        """Return a copy of the errors of some rows, NaN where they are unknown."""
        return ReferenceErrors(self.errors[rows.to(self.errors.device)])

    def keep(self, rows: Tensor, errors: Tensor) -> None:
        """Add the errors of unknown rows.

        Of a row that occurs twice, the first is kept: an indexed assignment would choose one at random.

        Args:
            rows: (pairs,) int64 on the CPU.
            errors: (pairs, 2 * prompts) fp32, see `ReferenceErrors`.
        """
        numbers = rows.tolist()
        first_places = {numbers[place]: place for place in reversed(self.unknown(rows))}
        if first_places:
            self.errors[list(first_places)] = errors[list(first_places.values())]
            self._known_rows.update(dict.fromkeys(first_places))

    def forget_after(self, num_known: int) -> None:
        """Keep only the first `num_known` rows: a step that is repeated must find the bank as it was."""
        self._known_rows = dict.fromkeys(list(self._known_rows)[:num_known])
        self.errors[self.unknown(torch.arange(len(self.errors)))] = math.nan

    def restore(self, errors: Tensor) -> None:
        """Copy the errors of another bank of the same shape."""
        self.errors.copy_(errors)
        self._known_rows = dict.fromkeys((~errors.isnan().any(dim=1)).nonzero()[:, 0].tolist())
