"""Noise schedule, prediction target and squared errors: the arithmetic between latents and a loss."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

NUM_TIMESTEPS = 1000
PREDICTION_TYPES = ("epsilon", "v_prediction")  # diffusers' names
FLOW = "flow_prediction"  # diffusers' name


class Schedule(ABC):
    """How latents are noised and what the network predicts: a table of 1000 noise levels, noisiest last.

    A timestep is an index into the table. Training draws timesteps evenly, so the table is also the
    distribution of noise levels that training sees.

    Attributes:
        prediction_type: what the network predicts, as diffusers names it.
        levels: the table that defines the schedule, shape (1000,), fp32.
    """

    prediction_type: str

    @property
    @abstractmethod
    def levels(self) -> Tensor:
        """The table that defines the schedule, shape (1000,), fp32."""

    @abstractmethod
    def coefficients(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors of clean latents and noise, each in the shape of `timesteps`, fp32."""

    @abstractmethod
    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the network should predict, (batch, c, h, w) fp32; arguments as `add_noise`."""

    @abstractmethod
    def split(self, noisy: Tensor, predicted: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
        """Return the clean latents and the noise that a prediction implies.

        Args:
            noisy: latents at `timestep`, (batch, c, h, w), fp32.
            predicted: output of the network for them, same shape, fp32.
            timestep: index in [0, 1000).
        """

    def __len__(self) -> int:
        return len(self.levels)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return x_t = signal_t x_0 + sigma_t noise.

        Args:
            latents: x_0, as the network sees them, shape (batch, c, h, w).
            noise: standard normal, same shape.
            timesteps: indices in [0, 1000), shape (batch,).

        Returns:
            Noisy latents, shape (batch, c, h, w), fp32.
        """
        signal, sigma = self._broadcast(timesteps, latents)
        return signal * latents.float() + sigma * noise.float()

    def _broadcast(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        factors = self.coefficients(timesteps.to(like.device))
        return tuple(factor.reshape(-1, *[1] * (like.ndim - 1)) for factor in factors)  # (batch, 1, 1, 1)


@dataclass(frozen=True, eq=False)  # holds a tensor, so equality stays identity
class NoiseSchedule(Schedule):
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

    @property
    def levels(self) -> Tensor:
        """`alphas_cumprod`."""
        return self.alphas_cumprod

    def coefficients(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Return sqrt(a_t) and sqrt(1 - a_t), see `Schedule`."""
        alphas = self.alphas_cumprod.to(timesteps.device)[timesteps].float()
        return alphas.sqrt(), (1 - alphas).sqrt()

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
        signal, sigma = self._broadcast(timesteps, latents)
        return signal * noise.float() - sigma * latents.float()

    def split(self, noisy: Tensor, predicted: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
        """Return the clean latents and the noise that a prediction implies, see `Schedule`."""
        signal, sigma = (float(factor) for factor in self.coefficients(torch.tensor(timestep)))
        if self.prediction_type == "epsilon":
            return (noisy - sigma * predicted) / signal, predicted
        return signal * noisy - sigma * predicted, signal * predicted + sigma * noisy


@dataclass(frozen=True, eq=False)  # holds a tensor, so equality stays identity
class FlowSchedule(Schedule):
    """The straight path between latents and noise of a rectified flow (Liu et al. 2022, arXiv:2209.03003).

    x_t = (1 - sigma_t) x_0 + sigma_t noise, and the network predicts the velocity noise - x_0.

    Args:
        sigmas: share of noise at each timestep, shape (1000,), fp32, in (0, 1], not decreasing.

    Raises:
        ValueError: if the shape or a value is invalid.
    """

    sigmas: Tensor
    prediction_type: str = FLOW

    def __post_init__(self) -> None:
        sigmas = self.sigmas
        if sigmas.shape != (NUM_TIMESTEPS,):
            raise ValueError(f"sigmas must have shape ({NUM_TIMESTEPS},), got {tuple(sigmas.shape)}.")
        if not bool(((sigmas > 0) & (sigmas <= 1)).all()) or bool((sigmas.diff() < 0).any()):
            raise ValueError("sigmas must lie in (0, 1] and must not decrease.")

    @classmethod
    def shifted(cls, shift: float) -> "FlowSchedule":
        """Return evenly spread noise levels, shifted towards noise by a factor of the odds of noise.

        sigma = s u / (1 + (s - 1) u) with u even in (0, 1] (Esser et al. 2024, arXiv:2403.03206, eq. 23).

        Args:
            shift: s > 0; 1 leaves the levels even, SD 3 has 3.
        """
        even = torch.arange(1, NUM_TIMESTEPS + 1, dtype=torch.float64) / NUM_TIMESTEPS
        return cls((shift * even / (1 + (shift - 1) * even)).float())

    @property
    def levels(self) -> Tensor:
        """`sigmas`."""
        return self.sigmas

    def coefficients(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Return 1 - sigma_t and sigma_t, see `Schedule`."""
        sigmas = self.sigmas.to(timesteps.device)[timesteps].float()
        return 1 - sigmas, sigmas

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return the velocity noise - x_0, which is the same at every timestep; see `Schedule`."""
        return noise.float() - latents.float()

    def split(self, noisy: Tensor, predicted: Tensor, timestep: int) -> tuple[Tensor, Tensor]:
        """Return the clean latents and the noise that a prediction implies, see `Schedule`."""
        signal, sigma = (float(factor) for factor in self.coefficients(torch.tensor(timestep)))
        return noisy - sigma * predicted, noisy + signal * predicted


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
