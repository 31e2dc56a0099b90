"""DDIM with a noise prediction supplied by the caller, for guidance that the library's own drawing lacks."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from training.mini.scenes import STEPS

Predict = Callable[[Tensor, Tensor, int], Tensor]  # latents, timestep, step number -> noise


def start_noise(seeds: Sequence[int]) -> Tensor:
    """Return the noise that `render_latents` starts from, (len(seeds), 4, 8, 8)."""
    return torch.stack(
        [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )


@torch.no_grad()
def denoise(latents: Tensor, predict: Predict, *, steps: int = STEPS, taken: int | None = None) -> Tensor:
    """Take the first `taken` of `steps` DDIM steps (None: all) on Stable Diffusion's schedule."""
    from diffusers import DDIMScheduler  # late, as in the library

    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False
    )
    scheduler.set_timesteps(steps)
    for number, timestep in enumerate(scheduler.timesteps[:taken]):
        latents = scheduler.step(predict(latents, timestep, number), timestep, latents).prev_sample
    return latents
