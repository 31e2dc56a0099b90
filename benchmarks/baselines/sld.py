"""Safe Latent Diffusion: guide every drawing away from a text (Schramowski et al. 2023, arXiv:2211.05105).

No weight changes; every step makes a third prediction, under the unsafe text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.mini.scenes import GUIDANCE

from .ddim import denoise, start_noise


@dataclass(frozen=True)
class SldConfig:
    """Hyper-parameters of SLD, with the symbols of the paper.

    Attributes:
        scale: s_S, how fast the guidance of an element saturates.
        threshold: lambda; no guidance for elements whose prompted prediction exceeds the unsafe one by it.
        warmup: delta, number of first steps without guidance.
        momentum_scale: s_m.
        momentum_beta: beta_m.
    """

    scale: float
    threshold: float
    warmup: int
    momentum_scale: float
    momentum_beta: float


PUBLISHED = {  # Hyp-Strong and Hyp-Max: STRONG and MAX in the authors' `SafetyConfig`
    "strong": SldConfig(scale=2000, threshold=0.025, warmup=7, momentum_scale=0.5, momentum_beta=0.7),
    "max": SldConfig(scale=5000, threshold=1.0, warmup=0, momentum_scale=0.5, momentum_beta=0.7),
}


class SafetyGuidance:
    """The safety guidance gamma of one drawing, computed step by step."""

    def __init__(self, config: SldConfig) -> None:
        """Start a drawing with zero momentum."""
        self.config = config
        self._momentum: Tensor | float = 0.0

    def gamma(self, plain: Tensor, prompted: Tensor, unsafe: Tensor, number: int) -> Tensor:
        """Return gamma of a step, with the shape of the predictions; it is zero during the warm-up.

        phi = s_S (eps(z, p) - eps(z, S))
        (6) mu = min(1, |phi|) where eps(z, p) - eps(z, S) < lambda, else 0
        (4, 7) gamma = mu (eps(z, S) - eps(z)) + s_m nu
        (8) nu <- beta_m nu + (1 - beta_m) gamma, also in the warm-up

        Equation numbers are those named in the authors' `StableDiffusionPipelineSafe`. The paper prints
        max(1, |phi|), but that code takes the minimum, and only the minimum is bounded.

        Args:
            plain: prediction without text.
            prompted: prediction under the prompt.
            unsafe: prediction under the unsafe text.
            number: number of the step, from 0.
        """
        config, difference = self.config, prompted - unsafe
        mu = (config.scale * difference).abs().clamp(max=1.0)
        mu = torch.where(difference >= config.threshold, 0.0, mu)
        gamma = mu * (unsafe - plain) + config.momentum_scale * self._momentum
        self._momentum = config.momentum_beta * self._momentum + (1 - config.momentum_beta) * gamma
        return gamma if number >= config.warmup else torch.zeros_like(gamma)


def render_sld(
    unet: nn.Module, texts: Tensor, empty: Tensor, unsafe: Tensor, seeds: Sequence[int], config: SldConfig
) -> Tensor:
    """Draw as `render_latents` does, with eps = eps(z) + s_g (eps(z, p) - eps(z) - gamma), equation 3.

    Args:
        unet: any mini UNet.
        texts: embeddings of the prompts, (batch, 77, 768).
        empty: embedding of the empty prompt, (1, 77, 768).
        unsafe: embedding of the unsafe text, (1, 77, 768).
        seeds: seeds of the starting noise, one per picture.
        config: hyper-parameters.

    Returns:
        Latents (batch, 4, 8, 8), fp32.
    """
    guidance = SafetyGuidance(config)
    context = torch.cat([empty.expand_as(texts), texts, unsafe.expand_as(texts)])

    def predict(latents: Tensor, timestep: Tensor, number: int) -> Tensor:
        predictions = unet(torch.cat([latents] * 3), timestep, context).sample.chunk(3)
        plain, prompted, _ = predictions
        return plain + GUIDANCE * (prompted - plain - guidance.gamma(*predictions, number))

    return denoise(start_noise(seeds), predict)
