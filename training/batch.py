"""What one optimizer step looks at: the random draws, and the rows the UNet is run on.

Everything random is a function of (seed, step) alone. So a resumed run needs no random state but its
step, and an objective with neutral rows sees the same pairs and noise as one without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .bank import FixedDraws, fixed_draws
from .models.conditioning import Conditioning
from .models.noise import NoiseSchedule, named_generator
from .order import bucket_of, shuffled
from .pairs.training_data import Bucket


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


class Rows(NamedTuple):
    """Inputs of the UNet before noise is added, one entry per row."""

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    conditioning: Conditioning


class Batch(NamedTuple):
    """One call of the UNet: rows [winners; losers; kept], of which the first two are of equal number.

    Attributes:
        noisy: (2 * rows + kept, 4, h, w).
        timesteps: (2 * rows + kept,) int64.
        conditioning: 2 * rows + kept rows.
        target: what the UNet should predict, shape of noisy.
        num_pairs: number of pairs; their unsafe prompts come first among the winners and losers.
        num_rows: winners = losers: num_pairs, or twice that where the safe prompts follow.
        weights: how much each pair counts, in [0, 1], (num_pairs,); None is 1 for all.
    """

    noisy: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    target: Tensor
    num_pairs: int
    num_rows: int
    weights: Tensor | None = None

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Conditioning]:
        """What the UNet is given."""
        return self.noisy, self.timesteps, self.conditioning


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


def pair_rows(
    draw: Draw | FixedDraws, winner: Tensor, loser: Tensor, captions: list[Conditioning], empty: Conditioning
) -> tuple[Rows, Rows]:
    """Lay out the winners and the losers: same noise, timestep and (dropped) caption for both.

    Args:
        draw: the draws of these pairs.
        winner: latents of the safe images, (batch, 4, h, w).
        loser: latents of the unsafe images, same shape.
        captions: of the unsafe and, where wanted, of the safe prompts, batch rows each.
        empty: of the empty prompt, one row.

    Returns:
        Winner rows and loser rows, each len(captions) * batch rows.
    """
    kinds = len(captions)
    dropped = draw.dropped.to(winner.device)
    text = [own.replaced(dropped[:, kind], empty) for kind, own in enumerate(captions)]
    noise = draw.noise.to(winner.device).repeat(kinds, 1, 1, 1)  # (kinds * batch, 4, h, w)
    timesteps = draw.timesteps.to(winner.device).repeat(kinds)
    return tuple(
        Rows(latents.repeat(kinds, 1, 1, 1), noise, timesteps, Conditioning.concatenate(text))
        for latents in (winner, loser)
    )


def neutral_rows(draw: Draw, latents: Tensor, captions: Conditioning) -> Rows:
    """Lay out the neutral rows, with their own noise and timesteps; their captions are never dropped."""
    device = latents.device
    return Rows(latents, draw.neutral_noise.to(device), draw.neutral_timesteps.to(device), captions)


def pure_noise_rows(draw: Draw, schedule: NoiseSchedule, empty: Conditioning) -> Rows:
    """Lay out what the UNet sees of nothing: pure noise under the empty prompt, at the last timestep.

    Args:
        draw: its neutral noise is used.
        schedule: of the family.
        empty: of the empty prompt, one row.
    """
    device = empty.text_embeds.device
    noise = draw.neutral_noise.to(device)
    timesteps = torch.full((len(noise),), len(schedule.alphas_cumprod) - 1, device=device)
    sigma = (1 - schedule.alphas_cumprod[-1]).sqrt()  # taken out, so that noising gives the noise itself
    return Rows(torch.zeros_like(noise), noise / sigma, timesteps, empty[torch.zeros_like(timesteps)])


def stack_rows(
    parts: list[Rows], schedule: NoiseSchedule, *, num_pairs: int, weights: Tensor | None = None
) -> Batch:
    """Stack winners, losers and (where wanted) rows to keep into one call of the UNet."""
    *tensors, captions = zip(*parts, strict=True)
    latents, noise, timesteps = map(torch.cat, tensors)
    return Batch(
        noisy=schedule.add_noise(latents, noise, timesteps),
        timesteps=timesteps,
        conditioning=Conditioning.concatenate(captions),
        target=schedule.target(latents, noise, timesteps),
        num_pairs=num_pairs,
        num_rows=len(parts[0].latents),
        weights=weights,
    )


def _generator(seed: int, name: str, number: int) -> torch.Generator:
    return named_generator(f"{seed}/{name}/{number}")
