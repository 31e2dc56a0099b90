"""Deterministic sampling in few steps, for what the base model draws itself while training or merging."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .conditioning import Conditioning, predict
from .network import input_like
from .noise import Schedule


@torch.no_grad()
def draw_latents(
    unet: nn.Module,
    schedule: Schedule,
    prompts: Conditioning,
    noise: Tensor,
    *,
    empty: Conditioning,
    steps: int,
    guidance: float,
) -> Tensor:
    """Draw one picture per prompt by classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598).

    Args:
        unet: UNet of diffusers; an adapter on it takes part.
        schedule: of its family.
        prompts: one row per picture.
        noise: standard normal, (rows, c, h, w).
        empty: the empty prompt, one row.
        steps: number of DDIM steps.
        guidance: 1 draws without guidance, in half the time.

    Returns:
        Latents, (rows, c, h, w) fp32 on the device of the UNet.
    """
    weight = input_like(unet)
    rows, guided = len(noise), guidance != 1
    context = Conditioning.concatenate([prompts, empty[[0] * rows]]) if guided else prompts
    context = context.to(weight.device, weight.dtype)
    latents = noise.to(weight.device, torch.float32)
    timesteps = spread_timesteps(steps, len(schedule))
    for timestep, next_timestep in zip(timesteps, [*timesteps[1:], None], strict=True):
        noisy = latents.repeat(1 + guided, 1, 1, 1).to(weight.dtype)
        at = torch.full((len(noisy),), timestep, device=weight.device)
        predicted = predict(unet, noisy, at, context).float()  # (rows or 2 * rows, c, h, w)
        if guided:
            asked, unasked = predicted.chunk(2)
            predicted = unasked + guidance * (asked - unasked)
        latents = ddim_step(schedule, latents, predicted, timestep, next_timestep)
    return latents


def spread_timesteps(num_steps: int, num_timesteps: int) -> list[int]:
    """Return timesteps spread evenly over the schedule, descending, the noisiest one included."""
    return [num_timesteps - 1 - i * num_timesteps // num_steps for i in range(num_steps)]


def ddim_step(
    schedule: Schedule, noisy: Tensor, predicted: Tensor, timestep: int, next_timestep: int | None
) -> Tensor:
    """Move latents from one noise level to a lower one along the predicted direction, without new noise.

    x_s = signal_s x_0 + sigma_s noise, with x_0 and noise as predicted at t (Song et al. 2021,
    arXiv:2010.02502, eq. 12 with sigma = 0). On the straight path of a flow this is Euler's method.

    Args:
        schedule: also says what the model predicts.
        noisy: latents at `timestep`, (batch, c, h, w), fp32.
        predicted: output of the network for them, same shape, fp32.
        timestep: index in [0, 1000).
        next_timestep: lower index, or None for the clean latents.

    Returns:
        Latents at `next_timestep`, (batch, c, h, w), fp32.
    """
    clean, noise = schedule.split(noisy, predicted, timestep)
    if next_timestep is None:
        return clean
    signal, sigma = (float(factor) for factor in schedule.coefficients(torch.tensor(next_timestep)))
    return signal * clean + sigma * noise
