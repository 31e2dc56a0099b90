"""Which pairs a step sees: endless shuffled epochs, and one bucket of equal picture sizes at a time.

Everything is a function of (seed, step) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.noise import named_generator
from ..pairs.training_data import Bucket
from .bank import fixed_draws


def bucket_of(step: int, *, seed: int, batch_size: int, sizes: Sequence[int]) -> tuple[int, int]:
    """Choose the bucket of a step, every pair of every bucket being seen equally often in the long run.

    An epoch is as many batches of each bucket as its pairs have filled by then, in shuffled order, so a
    bucket that is smaller than a batch has its turn in some epochs only.

    Args:
        step: number of the step, from 0.
        seed: of the run.
        batch_size: pairs per step.
        sizes: pairs in each bucket, each >= 1.

    Returns:
        The number of the bucket, and how many steps before this one saw it.
    """
    if len(sizes) == 1:
        return 0, step

    def seen(epoch: int) -> list[int]:  # batches of each bucket before an epoch
        return [epoch * size // batch_size for size in sizes]

    epoch = step * batch_size // sum(sizes)  # at most the right one, as the batches are rounded down
    while sum(seen(epoch + 1)) <= step:
        epoch += 1
    before, after = seen(epoch), seen(epoch + 1)
    turns = [bucket for bucket in range(len(sizes)) for _ in range(before[bucket], after[bucket])]
    order = torch.randperm(len(turns), generator=named_generator(f"{seed}/bucket order/{epoch}"))
    so_far = [turns[place] for place in order[: step - sum(before) + 1].tolist()]
    bucket = so_far.pop()
    return bucket, before[bucket] + so_far.count(bucket)


def shuffled(items: Tensor, *, seed: int, name: str, start: int, count: int) -> Tensor:
    """Read positions start .. start + count of the endless row of shuffled epochs of some items.

    Args:
        items: (items,), at least one.
        seed: of the run.
        name: of the row; each name has its own order.
        start: first position, from 0.
        count: how many, >= 1.
    """
    places = [divmod(position, len(items)) for position in range(start, start + count)]
    orders = {
        epoch: torch.randperm(len(items), generator=named_generator(f"{seed}/{name}/{epoch}"))
        for epoch in dict.fromkeys(epoch for epoch, _ in places)
    }
    return items[torch.stack([orders[epoch][place] for epoch, place in places])]


class Draw(NamedTuple):
    """The random choices of one step, on the CPU; every field has one entry per pair.

    Attributes:
        pairs: pair indices, (batch,) int64.
        timesteps: one per pair, shared by winner, loser and both prompts, (batch,) int64.
        noise: likewise, (batch, 4, h, w).
        dropped: whether the (unsafe, safe) prompt is replaced by the empty one, (batch, 2) bool.
        neutral: indices of neutral rows, (batch,) int64.
        neutral_timesteps: (batch,) int64.
        neutral_noise: (batch, 4, h, w).
        rows_seed: of the choice of adapter neurons, one for the whole step, (batch,) int64.
        flipped: whether both images of a pair are mirrored, (batch,) bool.
        neutral_flipped: likewise of the neutral rows, (batch,) bool.
        bank_rows: the fixed draw of the `Bank` that a pair has, -1 where it has none, (batch,) int64.
    """

    pairs: Tensor
    timesteps: Tensor
    noise: Tensor
    dropped: Tensor
    neutral: Tensor
    neutral_timesteps: Tensor
    neutral_noise: Tensor
    rows_seed: Tensor
    flipped: Tensor
    neutral_flipped: Tensor
    bank_rows: Tensor

    def split(self, num_parts: int) -> list[Draw]:
        """Cut into micro-batches that differ by at most one pair."""
        return [Draw(*part) for part in zip(*(field.tensor_split(num_parts) for field in self), strict=True)]


def draw_step(
    step: int,
    *,
    seed: int,
    batch_size: int,
    buckets: Sequence[Bucket],
    num_timesteps: int,
    caption_dropout: float,
    flip: float,
    bank: int = 0,
) -> Draw:
    """Draw pairs (by shuffled epochs), timesteps, noise and dropped captions of one optimizer step.

    Args:
        step: number of the step, from 0.
        seed: seed of the run; the same seed and step give the same draw on every machine.
        batch_size: pairs per optimizer step, all out of one bucket.
        buckets: of the data.
        num_timesteps: pairs are noised at the first so many timesteps.
        caption_dropout: share of prompts to replace by the empty one, in [0, 1].
        flip: share of pairs and of neutral rows to mirror, in [0, 1].
        bank: fixed draws of each pair, met in turn, one in each epoch; 0 draws anew in every step. Neutral
            rows are always drawn anew.
    """
    sizes = [len(bucket.pairs) for bucket in buckets]
    number, turn = bucket_of(step, seed=seed, batch_size=batch_size, sizes=sizes)
    shape, pairs, neutral = buckets[number]
    of_pairs, of_neutral = _generator(seed, "pairs", step), _generator(seed, "neutral", step)
    place = {"seed": seed, "start": turn * batch_size, "count": batch_size}
    draw = Draw(
        pairs=shuffled(pairs, name="pair order", **place),
        timesteps=torch.randint(num_timesteps, (batch_size,), generator=of_pairs),
        noise=torch.randn(batch_size, *shape, generator=of_pairs),
        dropped=torch.rand(batch_size, 2, generator=of_pairs) < caption_dropout,
        neutral=shuffled(neutral, name="neutral order", **place),
        neutral_timesteps=torch.randint(num_timesteps, (batch_size,), generator=of_neutral),
        neutral_noise=torch.randn(batch_size, *shape, generator=of_neutral),
        rows_seed=torch.randint(2**31, (1,), generator=_generator(seed, "rows", step)).expand(batch_size),
        flipped=torch.rand(batch_size, generator=_generator(seed, "flip", step)) < flip,
        neutral_flipped=torch.rand(batch_size, generator=_generator(seed, "neutral flip", step)) < flip,
        bank_rows=torch.full((batch_size,), -1),
    )
    if not bank:
        return draw
    epochs = (turn * batch_size + torch.arange(batch_size)) // len(pairs)
    numbers = epochs % bank
    fixed = fixed_draws(
        draw.pairs,
        numbers,
        seed=seed,
        num_draws=bank,
        latent_shape=shape,
        num_timesteps=num_timesteps,
        caption_dropout=caption_dropout,
        flip=flip,
    )
    return draw._replace(**fixed._asdict(), bank_rows=draw.pairs * bank + numbers)


def _generator(seed: int, name: str, number: int) -> torch.Generator:
    return named_generator(f"{seed}/{name}/{number}")
