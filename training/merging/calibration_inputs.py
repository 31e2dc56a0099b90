"""The inputs of calibration: encoded prompts, and the latents shown with them.

In the order of the work: `calibration_prompts` chooses prompts, the caller encodes them into
`CalibrationInputs`, `with_everyday` lets the base model draw the pictures of everyday prompts, `rounds_of`
orders the inputs, and `base_passes` runs the base model on their latents. The latents are those of the
prompts' pictures with noise added or, where no prompt has pictures, what the base model draws itself.

Pictures are used where they exist: on the mini model (seven experts, three seeds, 168 pictures of each kind)
merges from pictures left an IP on unseen words of 0.26 against 0.28 with `regmean` and 0.71 against 0.73 with
`co_merge`, and 0.00 and 0.42 against 0.00 and 0.44 on words of the pairs. Of the pictures that must not
change, 194 of 195 were right against 195 with `regmean`, and 191 against 189 with `co_merge`: no difference
that so few pictures can show. For `regmean` the unsafe, the safe or both pictures of a pair did equally well
(one seed).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import MergeConfig
from ..models.conditioning import Conditioning, predict
from ..models.ddim import ddim_step, spread_timesteps
from ..models.noise import NoiseSchedule, named_generator
from ..pairs.everyday import GUIDANCE, STEPS, draw_everyday

NEUTRAL = ""  # the category of prompts on which nothing must change
_ROUND = 8  # prompts in a round if their categories are unknown


@dataclass(frozen=True, eq=False)  # holds tensors
class CalibrationInputs:
    """Encoded calibration prompts and the latents to show with them.

    Attributes:
        prompts: encoded, one row each.
        latent_shape: (c, h, w) of one latent.
        categories: see `CalibrationPrompts`.
        pictures: latents of each prompt's pictures as the UNet sees them, each of latent_shape; none of an
            everyday prompt, see `with_everyday`. None if the base model draws the latents itself.
        empty: the empty prompt, one row; needed if some prompts have pictures and others have none.
        neutral: see `CalibrationPrompts`.
    """

    prompts: Conditioning
    latent_shape: tuple[int, ...]
    categories: Sequence[str] | None = None
    pictures: Sequence[Sequence[Tensor]] | None = None
    empty: Conditioning | None = None
    neutral: str = ""

    def __post_init__(self) -> None:
        if self.without_pictures and self.empty is None:
            raise ValueError(
                f"{len(self.without_pictures)} prompts have no picture, so the base model draws one of each, "
                "and needs `empty`, the encoded empty prompt. Pass it."
            )

    @property
    def without_pictures(self) -> list[int]:
        """Numbers of the prompts without a picture among prompts with pictures."""
        return [number for number, pictures in enumerate(self.pictures or ()) if not pictures]

    def batch(self, numbers: Sequence[int]) -> CalibrationInputs:
        """Return the inputs of these prompts, by number."""
        return replace(
            self,
            prompts=self.prompts[torch.tensor(numbers)],
            categories=None if self.categories is None else [self.categories[i] for i in numbers],
            pictures=self.pictures and [self.pictures[i] for i in numbers],
        )

    def calibration_hash(self, schedule: NoiseSchedule, config: MergeConfig) -> str:
        """Return SHA-256 of prompts, pictures, how others are drawn, timesteps, noise seed and schedule."""
        facts = (self.latent_shape, config.timesteps, config.seed, schedule.prediction_type, self.categories)
        counts = self.pictures and [len(pictures) for pictures in self.pictures]
        digest = hashlib.sha256(f"{' '.join(map(str, facts))} {counts}".encode())
        shown = [latent for pictures in self.pictures or () for latent in pictures]
        if self.without_pictures:
            digest.update(f"{STEPS} steps, guidance {GUIDANCE}".encode())
            shown += self.empty.tensors
        for tensor in (*self.prompts.tensors, schedule.alphas_cumprod, *shown):
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
    schedule: NoiseSchedule
    weights_hash: str = ""


def with_everyday(
    base: BaseNetwork,
    inputs: CalibrationInputs,
    config: MergeConfig,
    *,
    batch_size: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> CalibrationInputs:
    """Let the base model draw a picture for each prompt that has none while others have one.

    Args:
        base: the base model.
        inputs: of all prompts.
        config: its seed decides the noise.
        batch_size: rows that the UNet gets at most, but at least two.
        on_progress: called with (pictures drawn, pictures); an exception raised by it ends the drawing.

    Returns:
        The inputs with these pictures, on the CPU; unchanged if there is nothing to draw.
    """
    numbers = inputs.without_pictures
    if not numbers:
        return inputs
    pictures = list(inputs.pictures)
    num_drawn = 0
    for latents in draw_everyday(
        base.unet,
        base.schedule,
        inputs.prompts[numbers],
        inputs.latent_shape,
        seeds=[f"calibration/{config.seed}/everyday/{place}" for place in range(len(numbers))],
        empty=inputs.empty,
        batch_size=max(1, batch_size // 2),  # guidance doubles the rows
    ):
        for latent in latents:
            pictures[numbers[num_drawn]] = [latent]
            num_drawn += 1
        if on_progress:
            on_progress(num_drawn, len(numbers))
    return replace(inputs, pictures=pictures)


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
    """Run the base model on a batch config.timesteps times; yield its latents after each pass.

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
    """Show the base model pictures at stratified timesteps; arguments and result as `base_passes`.

    The schedule is divided into config.timesteps strata of equal length, noisiest first, and each prompt gets
    a random timestep from each stratum: together the prompts cover the schedule evenly, without a grid. If a
    prompt has several pictures, they alternate from stratum to stratum.
    """
    weight = next(base.unet.parameters())
    prompts = batch.prompts.to(weight)
    generators = [named_generator(f"calibration/{config.seed}/{number}") for number in numbers]
    highest = spread_timesteps(config.timesteps, len(base.schedule.alphas_cumprod))
    for stratum, (high, low) in enumerate(zip(highest, [*highest[1:], -1], strict=True)):
        turns = zip(batch.pictures, numbers, strict=True)
        clean = torch.stack([pictures[(number + stratum) % len(pictures)] for pictures, number in turns])
        steps = torch.cat(
            [torch.randint(low + 1, high + 1, (1,), generator=generator) for generator in generators]
        )
        noise = torch.stack([torch.randn(clean.shape[1:], generator=generator) for generator in generators])
        noisy = base.schedule.add_noise(clean, noise, steps)  # (batch, c, h, w)
        predict(base.unet, noisy.to(weight), steps.to(weight.device), prompts)
        yield noisy


def _drawn(
    base: BaseNetwork, batch: CalibrationInputs, numbers: Sequence[int], config: MergeConfig
) -> Iterator[Tensor]:
    """Let the base model draw in as many coarse DDIM steps; arguments and result as `base_passes`."""
    weight = next(base.unet.parameters())
    prompts = batch.prompts.to(weight)
    latents = starting_noise(numbers, batch.latent_shape, config.seed).to(weight.device)
    timesteps = spread_timesteps(config.timesteps, len(base.schedule.alphas_cumprod))
    for timestep, next_timestep in zip(timesteps, [*timesteps[1:], None], strict=True):
        steps = torch.full((len(prompts),), timestep, device=weight.device)
        predicted = predict(base.unet, latents.to(weight.dtype), steps, prompts)
        latents = ddim_step(base.schedule, latents, predicted.float(), timestep, next_timestep)
        yield latents


def starting_noise(numbers: Sequence[int], latent_shape: Sequence[int], seed: int) -> Tensor:
    """Draw the noise of each prompt from its own generator, (batch, c, h, w)."""
    generators = [named_generator(f"calibration/{seed}/{number}") for number in numbers]
    return torch.stack([torch.randn(*latent_shape, generator=generator) for generator in generators])
