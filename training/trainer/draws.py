"""Random choices of a run: which pairs a step sees, and under which noise, timesteps, captions and mirroring.

Every choice is a function of the seed and the step alone. So a resumed run needs no random state, and an
objective with neutral rows sees the same pairs and noise as one without.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import TrainConfig
from ..losses import LOSSES
from ..models.noise import named_generator
from ..pairs.training_data import Bucket


class DrawRules(NamedTuple):
    """What all random choices of a run depend on.

    Attributes:
        seed: of the run; the same seed gives the same draws on every machine.
        num_timesteps: images are noised at the first `num_timesteps` timesteps.
        caption_dropout: share of prompts that the empty prompt replaces, in [0, 1].
        flip: share of pairs and of neutral images that are mirrored, in [0, 1].
        num_fixed: fixed draws of each pair, met in turn, one in each epoch; 0: every step draws anew.
        num_kept: rows that must not change for each pair: two everyday prompts, one on each of its pictures,
            or one row of pure noise.
        reach: the share of a sentence with everyday words in an unsafe prompt is drawn from [0, reach].
    """

    seed: int
    num_timesteps: int
    caption_dropout: float
    flip: float
    num_fixed: int = 0
    num_kept: int = 2
    reach: float = 0.0

    @classmethod
    def of(cls, config: TrainConfig) -> DrawRules:
        """Return the rules that resolved options set."""
        objective = LOSSES[config.objective]
        num_kept = 1 if objective.keeps_pure_noise else 2
        of_pairs = (config.caption_dropout, config.flip, config.bank)
        return cls(config.seed, objective.num_timesteps, *of_pairs, num_kept, config.reach)


class Draw(NamedTuple):
    """The random choices of one step, on the CPU; every field has one entry per pair.

    Attributes:
        pairs: pair numbers, (pairs,) int64.
        timesteps: shared by the winner, the loser and both prompts of a pair, (pairs,) int64.
        noise: shared likewise, (pairs, 4, h, w).
        dropped: whether the empty prompt replaces the (unsafe, safe) prompt, (pairs, 2) bool.
        blend: the share of a sentence with everyday words in the unsafe prompt, and its place among all
            sentences, both in [0, 1), (pairs, 2).
        neutral: numbers of what is kept, see `Bucket.neutral`, (pairs, kept) int64; of everyday prompts, the
            first is put on the winner and the second on the loser.
        neutral_timesteps: (pairs, kept) int64.
        neutral_noise: (pairs, kept, 4, h, w).
        rows_seed: seed of row dropout, the same for the whole step, (pairs,) int64.
        flipped: whether both images of a pair are mirrored, (pairs,) bool.
        neutral_flipped: whether a neutral image is mirrored, (pairs, kept) bool.
        bank_rows: row of the `Bank` that holds the errors of this draw, -1 without a bank, (pairs,) int64.
    """

    pairs: Tensor
    timesteps: Tensor
    noise: Tensor
    dropped: Tensor
    blend: Tensor
    neutral: Tensor
    neutral_timesteps: Tensor
    neutral_noise: Tensor
    rows_seed: Tensor
    flipped: Tensor
    neutral_flipped: Tensor
    bank_rows: Tensor

    def split(self, num_parts: int) -> list[Draw]:
        """Cut into parts whose numbers of pairs differ by at most one."""
        return [Draw(*part) for part in zip(*(field.tensor_split(num_parts) for field in self), strict=True)]


class FixedDraws(NamedTuple):
    """Fixed draws of some pairs; the fields are those of `Draw`, without neutral rows.

    Attributes:
        timesteps: (pairs,) int64.
        noise: (pairs, 4, h, w).
        dropped: (pairs, 2) bool.
        blend: (pairs, 2).
        flipped: (pairs,) bool.
    """

    timesteps: Tensor
    noise: Tensor
    dropped: Tensor
    blend: Tensor
    flipped: Tensor


def draw_step(step: int, buckets: Sequence[Bucket], rules: DrawRules, *, batch_size: int) -> Draw:
    """Draw pairs (by shuffled epochs), timesteps, noise, mirroring and dropped captions of a step.

    Args:
        step: number of the step, from 0.
        buckets: of the data; a step sees one of them.
        rules: of the run. Neutral rows are drawn anew in every step, also where pairs have fixed draws.
        batch_size: pairs per optimizer step.
    """
    sizes = [len(bucket.pairs) for bucket in buckets]
    number, turn = bucket_of(step, seed=rules.seed, batch_size=batch_size, sizes=sizes)
    shape, pairs, neutral = buckets[number]

    def generator(name: str) -> torch.Generator:
        return named_generator(f"{rules.seed}/{name}/{step}")

    of_pairs, of_neutral = generator("pairs"), generator("neutral")
    kept = (batch_size, rules.num_kept)

    def in_turn(items: Tensor, name: str, count: int) -> Tensor:
        return shuffled(items, seed=rules.seed, name=name, start=turn * count, count=count)

    draw = Draw(
        pairs=in_turn(pairs, "pair order", batch_size),
        timesteps=torch.randint(rules.num_timesteps, (batch_size,), generator=of_pairs),
        noise=torch.randn(batch_size, *shape, generator=of_pairs),
        dropped=torch.rand(batch_size, 2, generator=of_pairs) < rules.caption_dropout,
        blend=_blend(batch_size, generator("blend"), rules),
        neutral=in_turn(neutral, "neutral order", math.prod(kept)).view(kept),
        neutral_timesteps=torch.randint(rules.num_timesteps, kept, generator=of_neutral),
        neutral_noise=torch.randn(*kept, *shape, generator=of_neutral),
        rows_seed=torch.randint(2**31, (1,), generator=generator("rows")).expand(batch_size),
        flipped=torch.rand(batch_size, generator=generator("flip")) < rules.flip,
        neutral_flipped=torch.rand(kept, generator=generator("neutral flip")) < rules.flip,
        bank_rows=torch.full((batch_size,), -1),
    )
    if not rules.num_fixed:
        return draw
    epochs = (turn * batch_size + torch.arange(batch_size)) // len(pairs)
    numbers = epochs % rules.num_fixed
    fixed = fixed_draws(draw.pairs, numbers, rules, latent_shape=shape)
    return draw._replace(**fixed._asdict(), bank_rows=draw.pairs * rules.num_fixed + numbers)


def fixed_draws(
    pairs: Tensor, numbers: Tensor, rules: DrawRules, *, latent_shape: Sequence[int]
) -> FixedDraws:
    """Return one fixed draw of each pair; equal arguments give equal draws.

    The timesteps of a pair are spread evenly: each of its draws has an equal part of them to itself, in an
    order that differs between pairs, so that every draw is still uniform over all timesteps. Our choice.

    Args:
        pairs: pair numbers, (pairs,) int64.
        numbers: which of its draws each pair gets, in [0, num_fixed), (pairs,) int64.
        rules: with `num_fixed` above 0.
        latent_shape: (4, h, w).
    """
    draws = []
    for pair, number in zip(pairs.tolist(), numbers.tolist(), strict=True):
        generator = named_generator(f"{rules.seed}/bank/{pair}/{number}")
        order = torch.randperm(rules.num_fixed, generator=named_generator(f"{rules.seed}/bank order/{pair}"))
        place = (order[number] + torch.rand((), generator=generator)) / rules.num_fixed
        draws.append(
            FixedDraws(
                (place * rules.num_timesteps).long().clamp(max=rules.num_timesteps - 1),
                torch.randn(tuple(latent_shape), generator=generator),
                torch.rand(2, generator=generator) < rules.caption_dropout,
                _blend(1, named_generator(f"{rules.seed}/bank blend/{pair}/{number}"), rules)[0],
                torch.rand((), generator=generator) < rules.flip,
            )
        )
    return FixedDraws(*map(torch.stack, zip(*draws, strict=True)))


def _blend(count: int, generator: torch.Generator, rules: DrawRules) -> Tensor:
    return torch.rand(count, 2, generator=generator) * torch.tensor([rules.reach, 1.0])


def bucket_of(step: int, *, seed: int, batch_size: int, sizes: Sequence[int]) -> tuple[int, int]:
    """Choose the bucket of a step, so that all pairs are seen equally often in the long run.

    In each epoch, a bucket has as many batches as its pairs have filled by then, in shuffled order. A bucket
    that is smaller than a batch has a batch in some epochs only.

    Args:
        step: number of the step, from 0.
        seed: of the run.
        batch_size: pairs per step.
        sizes: number of pairs in each bucket, at least 1.

    Returns:
        The number of the bucket, and how many earlier steps saw it.
    """
    if len(sizes) == 1:
        return 0, step

    def batches_before(epoch: int) -> list[int]:  # of each bucket
        return [epoch * size // batch_size for size in sizes]

    epoch = step * batch_size // sum(sizes)  # a lower bound, because the batches are rounded down
    while sum(batches_before(epoch + 1)) <= step:
        epoch += 1
    before, after = batches_before(epoch), batches_before(epoch + 1)
    turns = [bucket for bucket in range(len(sizes)) for _ in range(before[bucket], after[bucket])]
    order = torch.randperm(len(turns), generator=named_generator(f"{seed}/bucket order/{epoch}"))
    turns_so_far = [turns[place] for place in order[: step - sum(before) + 1].tolist()]
    bucket = turns_so_far.pop()
    return bucket, before[bucket] + turns_so_far.count(bucket)


def shuffled(items: Tensor, *, seed: int, name: str, start: int, count: int) -> Tensor:
    """Return positions start .. start + count - 1 of an endless sequence of shuffled epochs of some items.

    Args:
        items: (items,), at least one.
        seed: of the run.
        name: of the sequence; each name has an order of its own.
        start: first position, from 0.
        count: how many positions, >= 1.
    """
    places = [divmod(position, len(items)) for position in range(start, start + count)]
    orders = {
        epoch: torch.randperm(len(items), generator=named_generator(f"{seed}/{name}/{epoch}"))
        for epoch in dict.fromkeys(epoch for epoch, _ in places)
    }
    return items[torch.stack([orders[epoch][place] for epoch, place in places])]
