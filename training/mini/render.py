"""Draw pictures with a mini UNet without a host: DDIM with classifier-free guidance."""

from collections.abc import Sequence

import torch
from torch import Tensor

STEPS = 20
GUIDANCE = 2.0


@torch.no_grad()
def render_latents(
    unet, embeds: Tensor, empty: Tensor, seeds: Sequence[int], *, steps: int = STEPS
) -> Tensor:
    """Sample one latent per prompt and seed.

    Args:
        unet: any mini UNet, narrow or wide, with or without an adapter.
        embeds: text embeddings, (batch, 77, 768).
        empty: embedding of the empty prompt, (1, 77, 768).
        seeds: of the starting noise, one per picture; equal seeds give equal layouts.
        steps: number of DDIM steps.

    Returns:
        Latents (batch, 4, 8, 8), fp32, as the UNet sees them.
    """
    # diffusers is imported late: a broken install must not remove the nodes
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False
    )
    scheduler.set_timesteps(steps)
    latents = torch.stack([torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(s)) for s in seeds])
    context = torch.cat([empty.expand_as(embeds), embeds])
    for timestep in scheduler.timesteps:
        plain, guided = unet(torch.cat([latents, latents]), timestep, context).sample.chunk(2)
        predicted = plain + GUIDANCE * (guided - plain)
        latents = scheduler.step(predicted, timestep, latents).prev_sample
    return latents
