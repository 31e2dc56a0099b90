"""Dual latent guidance on the narrow UNet, as the node does it (after the idea of arXiv:2411.13982)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.config import DualLatentConfig
from training.guards.dual_latent import blended
from training.mini.scenes import GUIDANCE

from .ddim import denoise, start_noise

LAST_TIMESTEP = 999


def render_dual_latent(
    unet: nn.Module,
    texts: Tensor,
    empty: Tensor,
    safe: Tensor,
    seeds: Sequence[int],
    config: DualLatentConfig,
) -> Tensor:
    """Draw as `render_latents` does, guided to a safe context from a part of the sampling on.

    Args:
        unet: any mini UNet.
        texts: embeddings of the prompts, (batch, 77, 768).
        empty: embedding of the empty prompt, (1, 77, 768).
        safe: embeddings of the safe contexts, (batch, 77, 768). One that equals its prompt guides to nothing.
        seeds: seeds of the starting noise, one per picture.
        config: weight, and start as a share of the timesteps.

    Returns:
        Latents (batch, 4, 8, 8), fp32.
    """
    context = torch.cat([empty.expand_as(texts), texts, safe])
    first_guided = (1 - config.start) * LAST_TIMESTEP

    def predict(latents: Tensor, timestep: Tensor, number: int) -> Tensor:
        predictions = unet(torch.cat([latents] * 3), timestep, context).sample.chunk(3)
        plain, prompted, guided = predictions
        weight = config.weight if float(timestep) < first_guided else 0.0
        return plain + GUIDANCE * (blended(prompted, guided, weight) - plain)

    return denoise(start_noise(seeds), predict)
