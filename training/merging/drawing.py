"""Base-model passes for calibration: coarse DDIM sampling, so that layers get what they get in use."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..conditioning import Conditioning, predict
from ..noise import NoiseSchedule, named_generator


def draw(
    unet: nn.Module, schedule: NoiseSchedule, prompts: Conditioning, noise: Tensor, timesteps: Sequence[int]
) -> Iterator[Tensor]:
    """Yield the latents of a batch after each DDIM step, (batch, c, h, w), fp32."""
    weight = next(unet.parameters())
    prompts, latents = prompts.to(weight), noise.to(weight.device)
    for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        steps = torch.full((len(prompts),), timestep, device=weight.device)
        predicted = predict(unet, latents.to(weight.dtype), steps, prompts)
        latents = ddim_step(schedule, latents, predicted.float(), timestep, following)
        yield latents


def calibration_timesteps(num_steps: int, num_timesteps: int) -> list[int]:
    """Return timesteps spread evenly over the schedule, falling, the noisiest one included."""
    return [num_timesteps - 1 - i * num_timesteps // num_steps for i in range(num_steps)]


def ddim_step(
    schedule: NoiseSchedule, noisy: Tensor, predicted: Tensor, timestep: int, following: int | None
) -> Tensor:
    """Move latents from one noise level to a lower one along the predicted direction, without new noise.

    x_s = sqrt(a_s) x_0 + sqrt(1 - a_s) noise, with x_0 and noise as predicted at t (Song et al. 2021,
    arXiv:2010.02502, eq. 12 with sigma = 0).

    Args:
        schedule: tells what the model predicts.
        noisy: latents at `timestep`, (batch, c, h, w), fp32.
        predicted: output of the UNet for them, same shape, fp32.
        timestep: index in [0, 1000).
        following: lower index, or None for the clean latents.

    Returns:
        Latents at `following`, (batch, c, h, w), fp32.
    """
    alpha = schedule.alphas_cumprod[timestep]
    signal, sigma = float(alpha.sqrt()), float((1 - alpha).sqrt())
    if schedule.prediction_type == "epsilon":
        noise, clean = predicted, (noisy - sigma * predicted) / signal
    else:  # v = signal * noise - sigma * clean
        noise, clean = signal * predicted + sigma * noisy, signal * noisy - sigma * predicted
    if following is None:
        return clean
    alpha = schedule.alphas_cumprod[following]
    return float(alpha.sqrt()) * clean + float((1 - alpha).sqrt()) * noise


def starting_noise(prompts: Sequence[int], latent_shape: Sequence[int], seed: int) -> Tensor:
    """Draw each prompt's noise from its own generator, (batch, c, h, w): batches do not matter."""
    generators = [named_generator(f"calibration/{seed}/{prompt}") for prompt in prompts]
    return torch.stack([torch.randn(*latent_shape, generator=generator) for generator in generators])
