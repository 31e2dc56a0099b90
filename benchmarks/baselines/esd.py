"""ESD-u: erase concepts from the weights that read no text (Gandikota et al. 2023, arXiv:2303.07345)."""

import copy
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.mini.scenes import STEPS
from training.models.noise import NUM_TIMESTEPS

from .ddim import denoise
from .kept_text import kept_text

# `noxattn` in the authors' code excludes the cross-attention, the time embedding and the output layer.
NOT_TRAINED = ("attn2.", "time_embedding.", "conv_norm_out.", "conv_out.")


@dataclass(frozen=True)
class EsdConfig:
    """Parameters of ESD.

    Attributes:
        eta: strength of the negative guidance. Authors' code: 1.
        learning_rate: learning rate of Adam. Authors' code: 1e-5.
        steps: optimizer steps. Authors' code: 1000, with one latent each.
        batch_size: latents per step, all at one timestep.
        start_guidance: guidance scale for drawing the training latents. Authors' code: 3.
        seed: seed of prompts, timesteps and noise.
    """

    eta: float = 1.0
    learning_rate: float = 1e-5
    steps: int = 200
    batch_size: int = 4
    start_guidance: float = 3.0
    seed: int = 0


def esd_target(plain: Tensor, conditioned: Tensor, eta: float) -> Tensor:
    """Return the target for the tuned model's prediction under the concept.

    eps(x_t, c, t) <- eps*(x_t, t) - eta * [eps*(x_t, c, t) - eps*(x_t, t)], with eps* the frozen model.
    """
    return plain - eta * (conditioned - plain)


def train_esd(unet: nn.Module, concepts: Tensor, empty: Tensor, config: EsdConfig) -> dict[str, Tensor]:
    """Fine-tune a copy of a UNet as `esd_path` does and return the change after the last step."""
    return deque(esd_path(unet, concepts, empty, config), maxlen=1).pop()


def esd_path(
    unet: nn.Module, concepts: Tensor, empty: Tensor, config: EsdConfig
) -> Iterator[dict[str, Tensor]]:
    """Fine-tune a copy of a UNet to move away from the concepts; yield the change after each step.

    A step draws latents under the concept with the tuned model up to a random timestep, and trains the model
    to predict `esd_target` there.

    Args:
        unet: frozen UNet; it is not changed.
        concepts: embeddings of the prompts to erase, (prompts, 77, 768).
        empty: embedding of the empty prompt, (1, 77, 768).
        config: parameters of the training.

    Yields:
        Parameter name -> change since the start.
    """
    tuned = copy.deepcopy(unet)
    trained = {name: weight for name, weight in tuned.named_parameters() if is_trained(name)}
    for weight in trained.values():
        weight.requires_grad_(True)
    optimizer = torch.optim.Adam(trained.values(), lr=config.learning_rate)
    generator, before = torch.Generator().manual_seed(config.seed), dict(unet.named_parameters())
    for _ in range(config.steps):
        numbers = torch.randint(len(concepts), (config.batch_size,), generator=generator)
        text = concepts[numbers]
        latents, timestep = _partly_denoised(tuned, text, empty, config.start_guidance, generator)
        with torch.no_grad():
            both = torch.cat([empty.expand_as(text), text])
            plain, conditioned = unet(torch.cat([latents, latents]), timestep, both).sample.chunk(2)
        predicted = tuned(latents, timestep, text).sample
        loss = F.mse_loss(predicted, esd_target(plain, conditioned, config.eta))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield {name: weight.detach() - before[name] for name, weight in trained.items()}


def is_trained(name: str) -> bool:
    """Return whether ESD-u trains this parameter of a diffusers UNet."""
    return not any(part in name for part in NOT_TRAINED)


def _partly_denoised(
    tuned: nn.Module, text: Tensor, empty: Tensor, guidance: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return latents denoised to a random step, and a random timestep within that step."""
    level = int(torch.randint(STEPS, (1,), generator=generator))  # 0: nearly clean
    span = NUM_TIMESTEPS // STEPS
    timestep = torch.randint(level * span, (level + 1) * span, (1,), generator=generator)
    both = torch.cat([empty.expand_as(text), text])

    def predict(latents: Tensor, at: Tensor, number: int) -> Tensor:
        plain, conditioned = tuned(torch.cat([latents, latents]), at, both).sample.chunk(2)
        return plain + guidance * (conditioned - plain)

    noise = torch.randn(len(text), 4, 8, 8, generator=generator)
    with kept_text(tuned):
        return denoise(noise, predict, taken=STEPS - 1 - level), timestep
