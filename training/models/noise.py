"""Noise schedule, prediction target and squared errors: the arithmetic between latents and a loss."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

NUM_TIMESTEPS = 1000
PREDICTION_TYPES = ("epsilon", "v_prediction")  # diffusers' names


@dataclass(frozen=True, eq=False)  # holds a tensor, so equality stays identity
class NoiseSchedule:
    """The forward noising chain of a family and the prediction type of its UNet.

    Args:
        alphas_cumprod: share of the signal's variance that is left at each timestep, shape (1000,), fp32,
            in [0, 1], not increasing.
        prediction_type: `epsilon` (the noise) or `v_prediction` (the velocity).

    Raises:
        ValueError: if the shape, a value or the prediction type is invalid.
    """

    alphas_cumprod: Tensor
    prediction_type: str = "epsilon"

    def __post_init__(self) -> None:
        if self.prediction_type not in PREDICTION_TYPES:
            raise ValueError(
                f"prediction_type must be one of {', '.join(PREDICTION_TYPES)}, got {self.prediction_type!r}."
            )
        alphas = self.alphas_cumprod
        if alphas.shape != (NUM_TIMESTEPS,):
            raise ValueError(f"alphas_cumprod must have shape ({NUM_TIMESTEPS},), got {tuple(alphas.shape)}.")
        if not bool(((alphas >= 0) & (alphas <= 1)).all()) or bool((alphas.diff() > 0).any()):
            raise ValueError("alphas_cumprod must lie in [0, 1] and must not increase.")

    @classmethod
    def scaled_linear(
        cls, prediction_type: str = "epsilon", beta_start: float = 0.00085, beta_end: float = 0.012
    ) -> "NoiseSchedule":
        """Return Stable Diffusion's schedule: sqrt(beta_t) is linear in t (Rombach et al. 2022, configs).

        Args:
            prediction_type: `epsilon` or `v_prediction`.
            beta_start: variance added at the first timestep, in (0, 1).
            beta_end: variance added at the last timestep, in (0, 1).
        """
        roots = torch.linspace(beta_start**0.5, beta_end**0.5, NUM_TIMESTEPS, dtype=torch.float64)
        return cls((1 - roots.square()).cumprod(0).float(), prediction_type)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise.

        Args:
            latents: x_0, scaled by the family's latent scale, shape (batch, c, h, w).
            noise: standard normal, same shape.
            timesteps: indices in [0, 1000), shape (batch,).

        Returns:
            Noisy latents, shape (batch, c, h, w), fp32.
        """
        signal, sigma = self._coefficients(timesteps, latents)
        return signal * latents.float() + sigma * noise.float()

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return the target of the UNet's prediction.

        epsilon: the noise. v: sqrt(a_t) noise - sqrt(1 - a_t) x_0 (Salimans and Ho 2022, arXiv:2202.00512).

        Args:
            latents: x_0, scaled by the family's latent scale, shape (batch, c, h, w).
            noise: standard normal, same shape.
            timesteps: indices in [0, 1000), shape (batch,).

        Returns:
            The target, shape (batch, c, h, w), fp32.
        """
        if self.prediction_type == "epsilon":
            return noise.float()
        signal, sigma = self._coefficients(timesteps, latents)
        return signal * noise.float() - sigma * latents.float()

    def _coefficients(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alphas = self.alphas_cumprod.to(like.device)[timesteps.to(like.device)]
        alphas = alphas.float().reshape(-1, *[1] * (like.ndim - 1))  # (batch, 1, 1, 1)
        return alphas.sqrt(), (1 - alphas).sqrt()


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error per element of each image, shape (batch,), fp32.

    The difference is formed in fp32 for policy and reference alike, because fp16 rounding, times beta / 2,
    would move the logit by up to 0.3. A sum instead of the mean would multiply beta by the latent's size.

    Args:
        prediction: output of the UNet, any float type, shape (batch, c, h, w).
        target: target of the prediction, same shape.

    Raises:
        ValueError: if the shapes differ, because they would broadcast silently.
    """
    if prediction.shape != target.shape:
        raise ValueError(
            "prediction and target must have the same shape, "
            f"got {tuple(prediction.shape)} and {tuple(target.shape)}."
        )
    return (prediction.float() - target.float()).square().flatten(1).mean(1)  # (batch,)


def named_generator(name: str) -> torch.Generator:
    """Return a CPU generator seeded by a name: equal names give equal numbers on every machine."""
    digest = hashlib.sha256(name.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
