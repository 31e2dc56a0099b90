"""Deterministic sampling in few steps, for what the base model draws itself while experts are compared."""

from __future__ import annotations

from torch import Tensor

from .noise import NoiseSchedule


def spread_timesteps(num_steps: int, num_timesteps: int) -> list[int]:
    """Return timesteps spread evenly over the schedule, descending, the noisiest one included."""
    return [num_timesteps - 1 - i * num_timesteps // num_steps for i in range(num_steps)]


def ddim_step(
    schedule: NoiseSchedule, noisy: Tensor, predicted: Tensor, timestep: int, next_timestep: int | None
) -> Tensor:
    """Move latents from one noise level to a lower one along the predicted direction, without new noise.

    x_s = sqrt(a_s) x_0 + sqrt(1 - a_s) noise, with x_0 and noise as predicted at t (Song et al. 2021,
    arXiv:2010.02502, eq. 12 with sigma = 0).

    Args:
        schedule: also says what the model predicts.
        noisy: latents at `timestep`, (batch, c, h, w), fp32.
        predicted: output of the UNet for them, same shape, fp32.
        timestep: index in [0, 1000).
        next_timestep: lower index, or None for the clean latents.

    Returns:
        Latents at `next_timestep`, (batch, c, h, w), fp32.
    """
    alpha = schedule.alphas_cumprod[timestep]
    signal, sigma = float(alpha.sqrt()), float((1 - alpha).sqrt())
    if schedule.prediction_type == "epsilon":
        noise, clean = predicted, (noisy - sigma * predicted) / signal
    else:  # v = signal * noise - sigma * clean
        noise, clean = signal * predicted + sigma * noisy, signal * noisy - sigma * predicted
    if next_timestep is None:
        return clean
    alpha = schedule.alphas_cumprod[next_timestep]
    return float(alpha.sqrt()) * clean + float((1 - alpha).sqrt()) * noise
