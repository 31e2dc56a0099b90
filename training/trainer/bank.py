"""Fixed draws: each pair meets the same few noised versions of itself, so the base model sees each only once.

The base model's errors, which no training changes, then cost one pass per draw instead of one per step. A
draw fixes all that they depend on: timestep, noise, mirroring, and which captions are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.noise import named_generator


class FixedDraws(NamedTuple):
    """The random choices of some pairs, see `batch.Draw`.

    Attributes:
        timesteps: (pairs,) int64.
        noise: (pairs, 4, h, w).
        dropped: (pairs, 2) bool.
        flipped: (pairs,) bool.
    """

    timesteps: Tensor
    noise: Tensor
    dropped: Tensor
    flipped: Tensor


def fixed_draws(
    pairs: Tensor,
    numbers: Tensor,
    *,
    seed: int,
    num_draws: int,
    latent_shape: Sequence[int],
    num_timesteps: int,
    caption_dropout: float,
    flip: float,
) -> FixedDraws:
    """Return one fixed draw of each pair; equal arguments give equal draws.

    The timesteps of a pair are spread evenly: each of its draws has an equal part of them to itself, in an
    order of the pair's own, so that every draw is still uniform over all timesteps. Our choice.

    Args:
        pairs: pair indices, (pairs,) int64.
        numbers: which draw of each, in [0, num_draws), (pairs,) int64.
        seed: of the run.
        num_draws: draws that each pair has.
        latent_shape: (4, h, w).
        num_timesteps: pairs are noised at the first so many timesteps.
        caption_dropout: share of prompts to replace by the empty one, in [0, 1].
        flip: share of pairs to mirror, in [0, 1].
    """
    draws = []
    for pair, number in zip(pairs.tolist(), numbers.tolist(), strict=True):
        generator = named_generator(f"{seed}/bank/{pair}/{number}")
        order = torch.randperm(num_draws, generator=named_generator(f"{seed}/bank order/{pair}"))
        place = (order[number] + torch.rand((), generator=generator)) / num_draws
        draws.append(
            FixedDraws(
                (place * num_timesteps).long().clamp(max=num_timesteps - 1),
                torch.randn(tuple(latent_shape), generator=generator),
                torch.rand(2, generator=generator) < caption_dropout,
                torch.rand((), generator=generator) < flip,
            )
        )
    return FixedDraws(*map(torch.stack, zip(*draws, strict=True)))


class Bank:
    """The base model's errors on the fixed draws of every pair, as far as they are known by now.

    Args:
        num_pairs: pairs of the data.
        num_draws: fixed draws of each.
        num_prompts: prompts each is seen under, 1 or 2.
        device: where the errors are kept; what is known of them is kept apart, so asking waits for no device.
    """

    def __init__(self, num_pairs: int, num_draws: int, num_prompts: int, device: torch.device) -> None:
        shape = (num_pairs * num_draws, 2 * num_prompts)  # a row: winner, loser, under each prompt
        self.errors = torch.full(shape, math.nan, device=device)
        self._known: dict[int, None] = {}  # in the order they came

    def __len__(self) -> int:
        return len(self._known)

    def unknown(self, rows: Tensor) -> list[int]:
        """Return the places in `rows`, (batch,) int64 on the CPU, whose errors are not there yet."""
        return [place for place, row in enumerate(rows.tolist()) if row not in self._known]

    def read(self, rows: Tensor) -> Tensor:
        """Return the errors of some rows, NaN where they are unknown, (batch, 2 * prompts) fp32."""
        return self.errors[rows.to(self.errors.device)]

    def keep(self, rows: Tensor, errors: Tensor) -> None:
        """Keep what was unknown; of a row that occurs twice the first, for kernels choose one at random.

        Args:
            rows: (batch,) int64 on the CPU.
            errors: (batch, 2 * prompts) fp32.
        """
        numbers = rows.tolist()
        first = {numbers[place]: place for place in reversed(self.unknown(rows))}
        if first:
            self.errors[list(first)] = errors[list(first.values())]
            self._known.update(dict.fromkeys(first))

    def forget_after(self, known: int) -> None:
        """Keep only the first `known` rows that came: a step done again must find what it found before."""
        self._known = dict.fromkeys(list(self._known)[:known])
        self.errors[self.unknown(torch.arange(len(self.errors)))] = math.nan

    def restore(self, errors: Tensor) -> None:
        """Take over the errors of another bank of this shape."""
        self.errors.copy_(errors)
        self._known = dict.fromkeys((~errors.isnan().any(dim=1)).nonzero()[:, 0].tolist())
