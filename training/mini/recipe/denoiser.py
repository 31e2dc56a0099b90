"""Train the narrow mini UNet: noise prediction on latents of drawn scenes, with their captions."""

import copy
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.noise import NoiseSchedule
from ..architecture import NARROW, build_unet
from ..scenes import ALL_SCENES
from . import seeded
from .autoencoder import scene_batch_of

STEPS = 4_000
SCHEDULE_STEPS = 8_000  # training stops half way through the one-cycle schedule: all pictures are right
CAPTIONS, PER_CAPTION = 16, 4
LEARNING_RATE = 1e-3
WARMUP = 200
EMA_DECAY = 0.999
CAPTION_DROPOUT = 0.1
VARIANTS = 36  # drawings per scene, encoded once


class SharedCaptionAttention:
    """Attention for a batch with several scenes per caption, which share one key and value.

    Projecting 77 text tokens is half the work of a small UNet; sharing saves most of it with equal results.
    """

    def __call__(
        self, attn, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_
    ) -> Tensor:
        """Return the attention output, shape of `hidden_states` (batch, tokens, d)."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        times = hidden_states.shape[0] // context.shape[0]
        key, value = key.repeat_interleave(times, 0), value.repeat_interleave(times, 0)
        query, key, value = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value)  # (batch, heads, tokens, d / heads)
        return attn.to_out[0](mixed.transpose(1, 2).flatten(2))


def encode_scenes(autoencoder, seed: int, variants: int = VARIANTS) -> Tensor:
    """Draw every scene several times and encode it: (scenes, variants, 4, 8, 8)."""
    rng = random.Random(seed)
    with torch.no_grad():
        encoded = [
            autoencoder.encode(scene_batch_of([scene] * variants, rng)).latents for scene in ALL_SCENES
        ]
    return torch.stack(encoded)


@dataclass(frozen=True)
class Captioned:
    """What a denoiser learns from.

    latents: drawn scenes, (scenes, variants, 4, 8, 8).
    captions: text embeddings, (scenes, wordings, 77, 768); each wording is used equally often.
    empty: embedding of the empty prompt, (1, 77, 768), for classifier-free guidance.
    num_captions: captions per step; keys and values of a caption are computed once.
    num_drawings: drawings per caption and step.
    """

    latents: Tensor
    captions: Tensor
    empty: Tensor
    num_captions: int = CAPTIONS
    num_drawings: int = PER_CAPTION


def one_cycle(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the learning rates of the small world's denoiser."""
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        LEARNING_RATE,
        total_steps=SCHEDULE_STEPS,
        pct_start=WARMUP / SCHEDULE_STEPS,
        final_div_factor=50,
    )


class Denoiser:
    """A narrow UNet in training: weights, moving average, optimizer, learning rates and random state."""

    def __init__(
        self,
        seed: int,
        schedule: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] = one_cycle,
        start: Mapping[str, Tensor] | None = None,
    ):
        self.generator = torch.Generator().manual_seed(seed)
        self.unet = seeded(self.new_network, seed)
        if start is not None:
            self.unet.load_state_dict(start)
        self.average = copy.deepcopy(self.unet).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.unet.parameters(), lr=LEARNING_RATE, weight_decay=1e-3, fused=True
        )
        self.schedule = schedule(self.optimizer)
        self.noise_schedule = NoiseSchedule.scaled_linear()
        self.steps = 0

    @staticmethod
    def new_network() -> torch.nn.Module:
        """Return an untrained network."""
        unet = build_unet(NARROW)
        unet.set_attn_processor(SharedCaptionAttention())
        return unet

    def loss(self, data: Captioned) -> Tensor:
        """Return the loss of one step."""
        batch = draw_batch(data, self.generator)
        return denoising_loss(self.unet, self.noise_schedule, *batch, self.generator)

    def step(self, data: Captioned) -> float:
        """Train one step and return its loss."""
        loss = self.loss(data)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        update_average(self.average, self.unet, min(EMA_DECAY, (1 + self.steps) / (10 + self.steps)))
        self.steps += 1
        return loss.item()


def draw_batch(data: Captioned, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pick scenes and drawings of each: latents (rows, 4, 8, 8), embeds (captions, 77, 768)."""
    latents, captions = data.latents, data.captions
    scene = torch.randint(len(latents), (data.num_captions,), generator=generator)
    wording = torch.randint(captions.shape[1], (data.num_captions,), generator=generator)
    variant = torch.randint(latents.shape[1], (data.num_captions, data.num_drawings), generator=generator)
    dropped = torch.rand(data.num_captions, generator=generator) < CAPTION_DROPOUT
    embeds = torch.where(dropped[:, None, None], data.empty.float(), captions[scene, wording].float())
    return latents[scene[:, None], variant].flatten(0, 1), embeds


def denoising_loss(unet, schedule: NoiseSchedule, latents: Tensor, embeds: Tensor, generator) -> Tensor:
    """Return the noise-prediction error, weighted towards noisy timesteps, which determine the content."""
    timesteps = torch.randint(1000, (len(latents),), generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    predicted = unet(schedule.add_noise(latents, noise, timesteps), timesteps, embeds).sample
    signal = schedule.alphas_cumprod[timesteps]
    weight = ((1 - signal) / signal).sqrt().clamp(0.3, 4)  # 1 / sqrt(signal-to-noise), our choice of bounds
    return (weight * (predicted - noise).square().mean(dim=(1, 2, 3))).mean()


@torch.no_grad()
def update_average(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    """Move the averaged weights towards those of the model by (1 - decay)."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
