"""The inputs of calibration: encoded prompts, and the latents shown with them.

In the order of the work: `calibration_prompts` chooses prompts, the caller encodes them into
`CalibrationInputs`, `rounds_of` orders the inputs, and `base_passes` runs the base model on their latents.
The latents are those of the prompts' pictures with noise added or, where prompts have no pictures, what the
base model draws itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import MergeConfig
from ..models.conditioning import Conditioning, predict
from ..models.ddim import ddim_step, spread_timesteps
from ..models.network import input_like
from ..models.noise import Schedule, named_generator

NEUTRAL = ""  # the category of prompts on which nothing must change
_ROUND = 8  # prompts in a round if their categories are unknown


@dataclass(frozen=True, eq=False)  # holds tensors
class CalibrationInputs:
    """Encoded calibration prompts and the latents to show with them.

    Attributes:
        prompts: encoded, one row each.
        latent_shape: (c, h, w) of one latent.
        categories: see `CalibrationPrompts`.
        pictures: latents of each prompt's pictures as the UNet sees them, each of latent_shape. None if the
            base model draws the latents itself.
        neutral: see `CalibrationPrompts`.
    """

    prompts: Conditioning
    latent_shape: tuple[int, ...]
    categories: Sequence[str] | None = None
    pictures: Sequence[Sequence[Tensor]] | None = None
    neutral: str = ""

    def num_passes(self, config: MergeConfig) -> int:
        """Return how often the base model runs on each prompt, see `base_passes`."""
        return config.timesteps if self.pictures is None else 1

    def batch(self, numbers: Sequence[int]) -> CalibrationInputs:
        """Return the inputs of these prompts, by number."""
        return replace(
            self,
            prompts=self.prompts[torch.tensor(numbers)],
            categories=None if self.categories is None else [self.categories[i] for i in numbers],
            pictures=self.pictures and [self.pictures[i] for i in numbers],
        )

    def calibration_hash(self, schedule: Schedule, config: MergeConfig) -> str:
        """Return SHA-256 of prompts, pictures, timesteps, noise seed and schedule."""
        facts = (self.latent_shape, config.timesteps, config.seed, schedule.prediction_type, self.categories)
        counts = self.pictures and [len(pictures) for pictures in self.pictures]
        digest = hashlib.sha256(f"{' '.join(map(str, facts))} {counts}".encode())
        shown = [latent for pictures in self.pictures or () for latent in pictures]
        for tensor in (*self.prompts.tensors, schedule.levels, *shown):
            digest.update(f"{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy())
        return digest.hexdigest()


class BaseNetwork(NamedTuple):
    """The base model as calibration runs it.

    Attributes:
        unet: UNet of diffusers without an adapter; not changed.
        schedule: noise schedule of its family.
        weights_hash: names the weights, for the metadata and the cache; empty if unknown.
    """

    unet: nn.Module
    schedule: Schedule
    weights_hash: str = ""


def rounds_of(num_prompts: int, categories: Sequence[str] | None, seed: int) -> list[list[int]]:
    """Return the order in which prompts run, in rounds: a pass that stops early has seen all categories.

    Args:
        num_prompts: number of prompts.
        categories: one per prompt; None shuffles the prompts.
        seed: of the shuffle.

    Returns:
        Numbers of prompts. If categories are known, a round holds the next prompt of each category.
    """
    if categories is None:
        order = torch.randperm(num_prompts, generator=named_generator(f"calibration order/{seed}")).tolist()
        return [order[start : start + _ROUND] for start in range(0, num_prompts, _ROUND)]
    rounds: list[list[int]] = []
    last_round: dict[str, int] = {}
    for number, category in enumerate(categories):
        place = last_round[category] = last_round.get(category, -1) + 1
        if place == len(rounds):
            rounds.append([])
        rounds[place].append(number)
    return rounds


def base_passes(
    base: BaseNetwork, batch: CalibrationInputs, numbers: Sequence[int], config: MergeConfig
) -> Iterator[Tensor]:
    """Run the base model on a batch; yield its latents after each pass.

    Prompts with pictures take one pass, others config.timesteps passes.

    Args:
        base: the base model.
        batch: inputs of the batch.
        numbers: of its prompts; they seed the noise, so how prompts are batched does not matter.
        config: timesteps and seed.

    Yields:
        Shape (batch, c, h, w), fp32.
    """
    return (_drawn if batch.pictures is None else noised)(base, batch, numbers, config)


def noised(
    base: BaseNetwork, batch: CalibrationInputs, numbers: Sequence[int], config: MergeConfig
) -> Iterator[Tensor]:
    """Show the base model one noised picture of each prompt; arguments and result as `base_passes`.

    The schedule is divided into config.timesteps strata of equal length, noisiest first. The prompts take the
    strata in turn, each at a random timestep, and with every turn the next of their pictures. More prompts
    say more about the layers that read them than the same ones at more timesteps.
    """
    weight = input_like(base.unet)
    prompts = batch.prompts.to(weight)
    generators = [named_generator(f"calibration/{config.seed}/{number}") for number in numbers]
    ends = [*spread_timesteps(config.timesteps, len(base.schedule)), -1]
    clean, steps = [], []
    for pictures, number, generator in zip(batch.pictures, numbers, generators, strict=True):
        turn, stratum = divmod(number, config.timesteps)
        clean.append(pictures[turn % len(pictures)])
        steps.append(torch.randint(ends[stratum + 1] + 1, ends[stratum] + 1, (), generator=generator))
    noise = torch.stack([torch.randn(batch.latent_shape, generator=generator) for generator in generators])
    timesteps = torch.stack(steps)
    noisy = base.schedule.add_noise(torch.stack(clean), noise, timesteps)  # (batch, c, h, w)
    predict(base.unet, noisy.to(weight), timesteps.to(weight.device), prompts)
    yield noisy


def _drawn(
    base: BaseNetwork, batch: CalibrationInputs, numbers: Sequence[int], config: MergeConfig
) -> Iterator[Tensor]:
    """Let the base model draw in as many coarse DDIM steps; arguments and result as `base_passes`."""
    weight = input_like(base.unet)
    prompts = batch.prompts.to(weight)
    latents = starting_noise(numbers, batch.latent_shape, config.seed).to(weight.device)
    timesteps = spread_timesteps(config.timesteps, len(base.schedule))
    for timestep, next_timestep in zip(timesteps, [*timesteps[1:], None], strict=True):
        steps = torch.full((len(prompts),), timestep, device=weight.device)
        predicted = predict(base.unet, latents.to(weight.dtype), steps, prompts)
        latents = ddim_step(base.schedule, latents, predicted.float(), timestep, next_timestep)
        yield latents


def starting_noise(numbers: Sequence[int], latent_shape: Sequence[int], seed: int) -> Tensor:
    """Draw the noise of each prompt from its own generator, (batch, c, h, w)."""
    generators = [named_generator(f"calibration/{seed}/{number}") for number in numbers]
    return torch.stack([torch.randn(*latent_shape, generator=generator) for generator in generators])
