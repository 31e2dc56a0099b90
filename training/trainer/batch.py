"""What one optimizer step looks at: the random draws, and the rows the UNet is run on.

Everything random is a function of (seed, step) alone. So a resumed run needs no random state but its
step, and an objective with neutral rows sees the same pairs and noise as one without.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ..losses import LOSSES
from ..models.conditioning import Conditioning
from ..models.noise import NoiseSchedule
from .bank import FixedDraws
from .draws import Draw
from .run import Run


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


Table = TypeVar("Table", Tensor, Conditioning)


def gather(run: Run, draw: Draw) -> Batch:
    """Fetch the rows of a draw from the cached data; rows that would weigh nothing are left out."""
    parts = [*rows_of_pairs(run, draw.pairs, draw)]
    if run.config.preserve_weight > 0:
        parts.append(_kept_rows(run, draw))
    weights = run.weights[draw.pairs].to(run.device)
    return stack_rows(parts, run.schedule, num_pairs=len(draw.pairs), weights=weights)


def rows_of_pairs(run: Run, pairs: Tensor, draw: Draw | FixedDraws) -> tuple[Rows, Rows]:
    """Fetch winners and losers of some pairs, under the unsafe and (where trained) the safe prompts."""
    data = run.data
    prompts = [data.unsafe_prompt] + ([data.safe_prompt] if run.config.safe_prompt_weight > 0 else [])
    captions = [_rows(run, data.prompts, prompt[pairs]) for prompt in prompts]
    images = pairs + data.num_pairs * draw.flipped  # both of a pair, or none: it shares its layout
    winner, loser = (_rows(run, latents, images) for latents in (data.winner, data.loser))
    return pair_rows(draw, winner, loser, captions, data.empty.to(run.device))


def _kept_rows(run: Run, draw: Draw) -> Rows:
    """Fetch what must stay as the base model has it, as the objective asks."""
    data, empty = run.data, run.data.empty.to(run.device)
    if "output_preservation" in LOSSES[run.config.objective].terms:
        return pure_noise_rows(draw, run.schedule, empty)
    latents = _rows(run, data.neutral, draw.neutral + data.num_neutral * draw.neutral_flipped)
    return neutral_rows(draw, latents, _rows(run, data.prompts, data.neutral_prompt[draw.neutral]))


def _rows(run: Run, table: Table, index: Tensor) -> Table:
    return table[index].to(run.device, torch.float32)
