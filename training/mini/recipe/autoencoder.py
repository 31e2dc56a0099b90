"""Train the mini autoencoder: 64 x 64 pixels to an 8 x 8 latent with 4 channels, TAESD's layout."""

import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..architecture import AUTOENCODER_WIDTH, build_autoencoder
from ..scenes import ALL_SCENES, Scene, draw
from . import seeded

STEPS = 1600
BATCH = 32
LEARNING_RATE = 2e-3
LATENT_NOISE = 0.15  # teaches the decoder to tolerate the noise that a sampler leaves


def train_autoencoder(
    next_pictures: Callable[[], Tensor],
    seed: int,
    on_progress: Callable[[int, int, float], None],
    *,
    start: Mapping[str, Tensor] | None = None,
    steps: int = STEPS,
):
    """Train and return a diffusers AutoencoderTiny whose latents have mean 0 and spread 1.

    Args:
        next_pictures: returns the pictures of one step, (batch, 3, 64, 64) in [-1, 1].
        seed: seed of weights and noise.
        on_progress: called with (step, total, loss).
        start: weights to start from instead of drawn ones.
        steps: number of steps.
    """
    generator = torch.Generator().manual_seed(seed)
    model = seeded(lambda: build_autoencoder(AUTOENCODER_WIDTH), seed)
    if start is not None:
        model.load_state_dict(start)
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        loss = autoencoder_loss(model, next_pictures(), generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        on_progress(step + 1, steps, loss.item())
    return model.requires_grad_(False)


def scene_batch(rng: random.Random, count: int) -> Tensor:
    """Draw `count` random scenes, see `scene_batch_of`."""
    return scene_batch_of([rng.choice(ALL_SCENES) for _ in range(count)], rng)


def scene_batch_of(scenes: Sequence[Scene], rng: random.Random) -> Tensor:
    """Draw scenes: fp32 in [-1, 1], shape (len(scenes), 3, 64, 64)."""
    pictures = np.stack([draw(scene, rng) for scene in scenes])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def autoencoder_loss(model, images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the reconstruction error through a noised latent, plus a pull to mean 0 and spread 1."""
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        latents = model.encode(images).latents
        noise = torch.randn(latents.shape, generator=generator)
        decoded = model.decode(latents + LATENT_NOISE * noise).sample
    latents, decoded = latents.float(), decoded.float()
    mean, spread = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    shape_pull = mean.square().mean() + (spread - 1).square().mean()
    return F.l1_loss(decoded, images) + F.mse_loss(decoded, images) + 0.1 * shape_pull
