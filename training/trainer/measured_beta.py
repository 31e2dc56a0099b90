"""Beta from the pairs and the model themselves, for objectives whose strength must fit any model's errors."""

from __future__ import annotations

import torch

from ..experts import adapter
from ..models.conditioning import predict
from ..models.noise import named_generator, squared_error
from .run import Run

NUM_DRAWS = 64
NOISIEST = 0.2  # share of the timesteps: there the picture's content is decided
OPEN_LOGIT = (
    2.5  # size of the logit, there, of a preference that is undone: sigmoid'(2.5) is 28 % of its peak
)


@torch.no_grad()
def measured_beta(run: Run) -> float:
    """Return the beta at which the sigmoid is still open where the base model decides what to draw.

    beta / 2 * mean |e_w - e_l| = OPEN_LOGIT, with errors of the base model under the unsafe prompt, in the
    noisiest fifth of the timesteps. With a larger beta the loss is content there before the picture has
    changed; with a smaller one the pull back to the base model is weak. Our choice; on the mini model it
    gives about 500, where a search by hand had ended.

    Args:
        run: before its first step; the first pairs of its fullest bucket are used, `micro_batch` at once.

    Returns:
        beta in AlignGuard's convention, to two digits: rounding must not make another run of it.

    Raises:
        ValueError: if winners and losers are the same to the model, so that there is nothing to learn.
    """
    data, schedule, weight = run.data, run.schedule, run.unet.conv_in.weight
    steps = len(schedule.alphas_cumprod)
    bucket = max(data.buckets, key=lambda each: len(each.pairs))  # pictures of one size can be stacked
    pairs = bucket.pairs[torch.arange(NUM_DRAWS) % len(bucket.pairs)]
    timesteps = steps - 1 - torch.arange(NUM_DRAWS) * round(NOISIEST * steps) // NUM_DRAWS
    generator = named_generator(f"{run.config.seed}/measured beta")
    noise = torch.randn(NUM_DRAWS, *bucket.latent_shape, generator=generator)
    gaps = []
    for rows in torch.arange(NUM_DRAWS).split(run.micro_batch):
        run.check_cancel()
        captions = data.prompts[data.unsafe_prompt[pairs[rows]]].to(weight)
        own, times = noise[rows].to(weight.device), timesteps[rows].to(weight.device)
        errors = []
        for table in (data.winner, data.loser):
            latents = table[pairs[rows]].to(weight.device, torch.float32)
            noisy = schedule.add_noise(latents, own, times).to(weight)
            target = schedule.target(latents, own, times)
            with adapter.reference(run.unet):
                errors.append(squared_error(predict(run.unet, noisy, times, captions), target))
        gaps.append((errors[0] - errors[1]).abs())
    gap = float(torch.cat(gaps).double().mean())
    if not gap > 0:
        raise ValueError(
            "the safe and the unsafe images are the same to this model, so no beta fits them. Check that the "
            "two images of a pair differ, or set beta yourself."
        )
    return float(f"{2 * OPEN_LOGIT / gap:.1e}")
