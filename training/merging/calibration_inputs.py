"""The inputs of calibration: prompts chosen from preference pairs, and the latents shown with them.

In the order of the work: `calibration_prompts` chooses, the caller encodes them into `CalibrationInputs`,
`rounds_of` orders them, and `base_passes` runs the base model on their latents. The latents are those of the
prompts' pictures with noise added or, where prompts have no pictures, what the base model draws itself.

Pictures are used where they exist: on the mini model (seven experts, three seeds, 168 pictures of each kind)
merges from pictures left an IP on unseen words of 0.26 against 0.28 with `regmean` and 0.71 against 0.73 with
`co_merge`, and 0.00 and 0.42 against 0.00 and 0.44 on words of the pairs. Of the pictures that must not
change, 194 of 195 were right against 195 with `regmean`, and 191 against 189 with `co_merge`: no difference
that so few pictures can show. For `regmean` the unsafe, the safe or both pictures of a pair did equally well
(one seed).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..config import MergeConfig
from ..models.conditioning import Conditioning, predict
from ..models.ddim import ddim_step, spread_timesteps
from ..models.noise import NoiseSchedule, named_generator
from ..pairs.pair import PreferencePair
from .methods import MERGE_METHODS

NEUTRAL = ""  # the category of prompts on which nothing must change
_ROUND = 8  # prompts in a round if their categories are unknown
_PicturesOf = defaultdict[str, list[Path]]  # distinct prompts, in order -> the pictures of each
_T = TypeVar("_T")


class CalibrationPrompts(NamedTuple):
    """The prompts on which the experts are compared.

    Attributes:
        prompts: encoded and run one by one.
        categories: the category that each prompt was chosen for (`NEUTRAL`: none); None if unknown.
        pictures: files of each prompt's pictures; None if prompts have no pictures.
    """

    prompts: tuple[str, ...]
    categories: tuple[str, ...] | None
    pictures: tuple[tuple[Path, ...], ...] | None = None


def calibration_prompts(
    pairs: Iterable[PreferencePair], config: MergeConfig, neutral: Iterable[tuple[str, Path]] = ()
) -> CalibrationPrompts:
    """Choose calibration prompts from preference pairs.

    A category with fewer prompts than asked for repeats them, each time with other noise; otherwise its
    expert would count less for lack of prompts. A method that needs categories also gets as many neutral
    prompts, and as many safe ones. An unsafe prompt has both pictures of its pair, because an expert in use
    meets what lies between them.

    Args:
        pairs: of all categories to be merged; a pair of several categories serves each of them.
        config: prompts_per_category, and the method.
        neutral: prompts of no category, each with its picture.

    Returns:
        prompts_per_category unsafe prompts per category, category by category in sorted order, each
        category in the order of the pairs; then, if needed, the neutral and the safe ones.

    Raises:
        ValueError: if there is no pair with a category.
    """
    unsafe: dict[str, _PicturesOf] = {}
    safe, unrelated = _PicturesOf(list), _PicturesOf(list)
    for pair in pairs:
        safe[pair.safe_prompt] += [pair.winner]
        for category in pair.categories:
            unsafe.setdefault(category, _PicturesOf(list))[pair.unsafe_prompt] += [pair.loser, pair.winner]
    for prompt, picture in neutral:
        unrelated[prompt] += [picture]
    if not unsafe:
        raise ValueError("calibration needs preference pairs with a category, got none.")
    groups = [(name, unsafe[name]) for name in sorted(unsafe)]
    collector = MERGE_METHODS[config.method].collector
    if collector and collector.needs_categories:
        groups += [(NEUTRAL, texts) for texts in (unrelated, safe) if texts]
    rows = [
        (prompt, name, tuple(pictures))
        for name, texts in groups
        for prompt, pictures in _repeated(texts.items(), config.prompts_per_category)
    ]
    return CalibrationPrompts(*zip(*rows, strict=True))


@dataclass(frozen=True, eq=False)  # holds tensors
class CalibrationInputs:
    """Encoded calibration prompts and the latents to show with them.

    Attributes:
        prompts: encoded, one row each.
        latent_shape: (c, h, w) of one latent.
        categories: see `CalibrationPrompts`.
        pictures: latents of each prompt's pictures as the UNet sees them, each of latent_shape; None if the
            base model draws the latents itself.
    """

    prompts: Conditioning
    latent_shape: tuple[int, ...]
    categories: Sequence[str] | None = None
    pictures: Sequence[Sequence[Tensor]] | None = None

    def batch(self, numbers: Sequence[int]) -> CalibrationInputs:
        """Return the inputs of these prompts, by number."""
        return CalibrationInputs(
            self.prompts[torch.tensor(numbers)],
            self.latent_shape,
            None if self.categories is None else [self.categories[i] for i in numbers],
            self.pictures and [self.pictures[i] for i in numbers],
        )

    def calibration_hash(self, schedule: NoiseSchedule, config: MergeConfig) -> str:
        """Return SHA-256 of prompts, pictures, timesteps, noise seed and schedule."""
        facts = (self.latent_shape, config.timesteps, config.seed, schedule.prediction_type, self.categories)
        counts = self.pictures and [len(pictures) for pictures in self.pictures]
        digest = hashlib.sha256(f"{' '.join(map(str, facts))} {counts}".encode())
        latents = [latent for pictures in self.pictures or () for latent in pictures]
        for tensor in (*self.prompts.tensors, schedule.alphas_cumprod, *latents):
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


def _repeated(items: Iterable[_T], count: int) -> list[_T]:
    items = list(items)
    return [items[i % len(items)] for i in range(count)]
