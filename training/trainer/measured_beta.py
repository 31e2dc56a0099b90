"""Beta measured on the pairs and the model, for objectives whose strength must fit the model's errors."""

from __future__ import annotations

import torch
from torch import Tensor

from ..experts import adapter
from ..models.conditioning import predict
from ..models.network import input_like
from ..models.noise import named_generator, squared_error
from .run import Run

NUM_DRAWS = 64
NOISIEST = 0.2  # share of the timesteps; there the content of the image is decided
OPEN_LOGIT = 2.5  # logit of an undone preference at these timesteps: sigmoid'(2.5) is 28 % of its peak


@torch.no_grad()
def measured_beta(run: Run) -> float:
    """Return the beta at which the sigmoid is not saturated where the base model decides what to draw.

    beta / 2 * mean |e_w - e_l| = OPEN_LOGIT, with errors of the base model under the unsafe prompt, in the
    noisiest fifth of the timesteps. With a larger beta the loss saturates there before the image has
    changed; with a smaller one the pull back to the base model is weak. Our choice; on the mini model it
    gives about 500, the value that a search by hand had found.

    Args:
        run: before its first step. The first pairs of its fullest bucket are used, `micro_batch` at once.

    Returns:
        beta in AlignGuard's convention, rounded to two digits, so that rounding errors of a device do not
        make another run of it.

    Raises:
        ValueError: if winners and losers are the same to the model, so that there is nothing to learn.
    """
    bucket = max(run.data.buckets, key=lambda bucket: len(bucket.pairs))  # latents of one size can be stacked
    pairs = bucket.pairs[torch.arange(NUM_DRAWS) % len(bucket.pairs)]  # (draws,)
    num_timesteps = len(run.schedule)
    timesteps = num_timesteps - 1 - torch.arange(NUM_DRAWS) * round(NOISIEST * num_timesteps) // NUM_DRAWS
    generator = named_generator(f"{run.config.seed}/measured beta")
    noise = torch.randn(NUM_DRAWS, *bucket.latent_shape, generator=generator)  # (draws, 4, h, w)
    gaps = []
    for rows in torch.arange(NUM_DRAWS).split(run.micro_batch):
        run.callbacks.check_cancel()
        gaps.append(_error_gaps(run, pairs[rows], noise[rows], timesteps[rows]))
    gap = float(torch.cat(gaps).double().mean())
    if not gap > 0:
        raise ValueError(
            "the safe and the unsafe images are the same to this model, so no beta fits them. Check that the "
            "two images of a pair differ, or set beta yourself."
        )
    return float(f"{2 * OPEN_LOGIT / gap:.1e}")


def _error_gaps(run: Run, pairs: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """Return |e_w - e_l| of the base model on some pairs, (pairs,) fp32."""
    data, schedule, weight = run.data, run.schedule, input_like(run.unet)
    captions = data.prompts[data.unsafe_prompt[pairs]].to(weight)
    noise, timesteps = noise.to(weight.device), timesteps.to(weight.device)
    errors = []
    for table in (data.winner, data.loser):
        latents = table[pairs].to(weight.device, torch.float32)
        noisy = schedule.add_noise(latents, noise, timesteps).to(weight)
        target = schedule.target(latents, noise, timesteps)
        with adapter.reference(run.unet):
            errors.append(squared_error(predict(run.unet, noisy, timesteps, captions), target))
    return (errors[0] - errors[1]).abs()
