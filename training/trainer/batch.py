"""The batch of a step: drawn, fetched from the cached data, stacked into one call of the UNet, and predicted.

All rows of a batch go through the UNet in one call. Their order is

    [winners (prompt, pair); losers (prompt, pair); rows to keep]

with the unsafe prompts before the safe ones where both are trained. Rows that would weigh nothing in the
loss are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ..losses import LOSSES
from ..models.conditioning import Conditioning, predict
from ..models.network import input_like
from ..models.noise import Schedule
from ..pairs.training_data import Bucket
from .draws import Draw, DrawRules, FixedDraws, draw_step
from .run import Run

Table = TypeVar("Table", Tensor, Conditioning)


class Rows(NamedTuple):
    """Some rows of a batch before noise is added.

    Attributes:
        latents: (rows, 4, h, w).
        noise: (rows, 4, h, w).
        timesteps: (rows,) int64.
        captions: the prompts, one per row.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    captions: Conditioning


class Lead(NamedTuple):
    """Where the pairs' unsafe prompts are led, see `safe_lead`; rows in the order (winners, losers).

    Attributes:
        captions: the safe prompts, (2 * pairs) rows.
        follows: whether a row is led to the base model's prediction under its safe prompt, (2 * pairs,)
            bool. A winner whose two prompts are the same is led to the noise instead.
        weights: how much each row counts, in [0, 1], (2 * pairs,). Rows whose caption was dropped do not
            count, nor do losers whose two prompts are the same.
    """

    captions: Conditioning
    follows: Tensor
    weights: Tensor


class Batch(NamedTuple):
    """One call of the UNet, with rows in the order that the module describes.

    Attributes:
        noisy: (2 * num_rows + kept, 4, h, w).
        timesteps: (2 * num_rows + kept,) int64.
        conditioning: 2 * num_rows + kept rows.
        target: what the UNet should predict, shape of `noisy`.
        num_pairs: number of pairs.
        num_rows: number of winners, and of losers: `num_pairs` times the number of prompts, 1 or 2.
        weights: how much each pair counts, in [0, 1], (num_pairs,); None: 1 for all.
        lead: where the unsafe prompts are led; None: nowhere.
    """

    noisy: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    target: Tensor
    num_pairs: int
    num_rows: int
    weights: Tensor | None = None
    lead: Lead | None = None

    @property
    def unsafe_rows(self) -> list[int]:
        """The rows under unsafe prompts, winners before losers."""
        return [start + pair for start in (0, self.num_rows) for pair in range(self.num_pairs)]


def draw_batch(run: Run, step: int, buckets: Sequence[Bucket] = ()) -> Draw:
    """Make the random choices of a step (from 0), out of some buckets, or by default out of all."""
    batch_size = run.config.batch_size * run.config.grad_accumulation
    return draw_step(step, buckets or run.data.buckets, DrawRules.of(run.config), batch_size=batch_size)


def fetch_batch(run: Run, draw: Draw) -> Batch:
    """Fetch the pairs of a draw, and what must not change where that weighs something, as one batch."""
    parts = [*_pair_rows(run, draw.pairs, draw)]
    if run.config.preserve_weight > 0:
        parts.append(_kept_rows(run, draw, [rows.latents for rows in parts]))
    weights = run.weights[draw.pairs].to(run.device)
    batch = _stacked(parts, run.schedule, num_pairs=len(draw.pairs), weights=weights)
    return batch._replace(lead=_lead(run, draw, weights)) if run.config.anchor_weight > 0 else batch


def fetch_pairs(run: Run, pairs: Tensor, draws: FixedDraws) -> Batch:
    """Fetch some pairs under fixed draws as one batch, without rows to keep.

    Args:
        run: whose data and prompts are used.
        pairs: pair numbers, (pairs,) int64.
        draws: one for each pair.
    """
    return _stacked(_pair_rows(run, pairs, draws), run.schedule, num_pairs=len(pairs))


def predict_batch(run: Run, batch: Batch, rows: Sequence[int] | slice = slice(None)) -> Tensor:
    """Run the UNet, with the adapter on or off as it stands, on some rows of a batch.

    Returns:
        The prediction, (rows, 4, h, w) fp32.
    """
    return predicted(run, batch.noisy[rows], batch.timesteps[rows], batch.conditioning[rows])


def predicted(run: Run, noisy: Tensor, timesteps: Tensor, captions: Conditioning) -> Tensor:
    """Run the UNet, with the adapter on or off as it stands, on the device of the run.

    Returns:
        The prediction, (rows, 4, h, w) fp32.
    """
    base_dtype = input_like(run.unet).dtype  # the adapter is fp32 whatever the base is
    captions = captions.to(base_dtype)
    with torch.autocast(run.device.type, dtype=run.autocast, enabled=run.autocast is not None):
        return predict(run.unet, noisy.to(base_dtype), timesteps, captions).float()


def _pair_rows(run: Run, pairs: Tensor, draws: Draw | FixedDraws) -> tuple[Rows, Rows]:
    """Fetch winners and losers, prompts * pairs rows each; both share noise, timesteps and captions."""
    data, empty = run.data, run.data.empty.to(run.device)
    prompts = [_unsafe_prompts(run, pairs, draws)]
    if run.config.safe_prompt_weight > 0:
        prompts.append(_fetched(run, data.prompts, data.safe_prompt[pairs]))
    dropped = draws.dropped.to(run.device)
    captions = Conditioning.concatenate(
        [prompt.replaced(dropped[:, kind], empty) for kind, prompt in enumerate(prompts)]
    )
    noise = draws.noise.to(run.device).repeat(len(prompts), 1, 1, 1)  # (prompts * pairs, 4, h, w)
    timesteps = draws.timesteps.to(run.device).repeat(len(prompts))  # (prompts * pairs,)
    images = pairs + data.num_pairs * draws.flipped  # mirrored images follow the others in the tables
    winners, losers = (
        _fetched(run, table, images).repeat(len(prompts), 1, 1, 1) for table in (data.winner, data.loser)
    )
    return Rows(winners, noise, timesteps, captions), Rows(losers, noise, timesteps, captions)


def _unsafe_prompts(run: Run, pairs: Tensor, draws: Draw | FixedDraws) -> Conditioning:
    """Return the unsafe prompts of pairs, blended with sentences of everyday words as far as `reach` goes."""
    data, (shares, places) = run.data, draws.blend.T
    prompts = _fetched(run, data.prompts, data.unsafe_prompt[pairs])
    if not run.config.reach or not len(data.sentence_prompt):
        return prompts
    sentences = data.sentence_prompt[(places * len(data.sentence_prompt)).long()]
    differ = data.unsafe_prompt[pairs] != data.safe_prompt[pairs]
    return prompts.blended(_fetched(run, data.prompts, sentences), (shares * differ).to(run.device))


def _lead(run: Run, draw: Draw, weights: Tensor) -> Lead:
    data, pairs = run.data, draw.pairs
    differ = data.unsafe_prompt[pairs] != data.safe_prompt[pairs]  # equal texts have equal numbers
    counts = ~draw.dropped[:, 0]
    of_rows = torch.cat([counts, counts & differ]).to(weights) * weights.repeat(2)
    captions = _fetched(run, data.prompts, data.safe_prompt[pairs])
    captions = Conditioning.concatenate([captions, captions])
    return Lead(captions, differ.repeat(2).to(run.device), of_rows)


def _kept_rows(run: Run, draw: Draw, pictures: Sequence[Tensor]) -> Rows:
    """Fetch what must stay as in the base model: neutral images and everyday prompts, or pure noise.

    Everyday prompts are put on the pictures of the pair at their place in the batch.

    Args:
        run: whose data is used.
        draw: of the step.
        pictures: latents of the winners and of the losers, those of the pairs of the draw first.
    """
    if LOSSES[run.config.objective].keeps_pure_noise:
        return _pure_noise_rows(run, draw)
    data, images = run.data, []
    for place, side in itertools.product(range(len(draw.pairs)), range(draw.neutral.shape[1])):
        number = draw.neutral[place, side]
        if number < data.num_neutral:
            row = number + data.num_neutral * draw.neutral_flipped[place, side]
            images.append(_fetched(run, data.neutral, row[None]))
        else:
            images.append(pictures[side][place][None])
    prompts = torch.cat([data.neutral_prompt, data.everyday_prompt])
    return Rows(
        torch.cat(images),
        draw.neutral_noise.flatten(0, 1).to(run.device),
        draw.neutral_timesteps.flatten().to(run.device),
        _fetched(run, data.prompts, prompts[draw.neutral.flatten()]),  # never dropped
    )


def _pure_noise_rows(run: Run, draw: Draw) -> Rows:
    """Return rows of pure noise under the empty prompt, at the last timestep."""
    noise = draw.neutral_noise.flatten(0, 1).to(run.device)
    timesteps = torch.full((len(noise),), len(run.schedule) - 1, device=run.device)
    _, sigma = run.schedule.coefficients(timesteps[0])  # adding noise multiplies by it: the noise is left
    captions = run.data.empty.to(run.device)[torch.zeros_like(timesteps)]
    return Rows(torch.zeros_like(noise), noise / sigma, timesteps, captions)


def _fetched(run: Run, table: Table, numbers: Tensor) -> Table:
    return table[numbers].to(run.device, torch.float32)


def _stacked(
    parts: Sequence[Rows], schedule: Schedule, *, num_pairs: int, weights: Tensor | None = None
) -> Batch:
    """Add noise and stack winners, losers and rows to keep."""
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
