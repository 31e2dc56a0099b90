"""The latents that calibration shows the base model: drawn by itself, or of pictures with noise added.

Pictures are used where there are some: on the mini model (seven experts, three seeds, 168 pictures of each
kind) merges from them left an IP on unseen words of 0.26 against 0.28 with `regmean` and 0.71 against 0.73
with `co_merge`, and 0.00 and 0.42 against 0.00 and 0.44 on words of the pairs. Of what must be kept 194 of
195 were right against 195 with `regmean`, 191 against 189 with `co_merge`: no difference that this many
pictures show. For `regmean` the unsafe, the safe or both pictures of a pair did equally well (one seed).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..config import MergeConfig
from ..models.conditioning import Conditioning, predict
from ..models.noise import NoiseSchedule, named_generator
from ..pairs.pair import PreferencePair
from .methods import MERGE_METHODS


def base_passes(
    unet: nn.Module,
    schedule: NoiseSchedule,
    prompts: Conditioning,
    numbers: Sequence[int],
    config: MergeConfig,
    *,
    latent_shape: Sequence[int],
    pictures: Sequence[Sequence[Tensor]] | None,
) -> Iterator[Tensor]:
    """Run the base model on a batch config.timesteps times; yield its latents after each pass.

    Args:
        unet: base model of diffusers.
        schedule: of its family.
        prompts: of the batch, encoded.
        numbers: of these prompts, which name their noise: batches do not matter.
        config: timesteps and seed.
        latent_shape: (c, h, w) of what is drawn.
        pictures: of each prompt of the batch, see `noised`; None draws, see `draw`.
    """
    if pictures is not None:
        return noised(unet, schedule, prompts, pictures, numbers, config)
    noise = starting_noise(numbers, latent_shape, config.seed)
    timesteps = calibration_timesteps(config.timesteps, len(schedule.alphas_cumprod))
    return draw(unet, schedule, prompts, noise, timesteps)


def draw(
    unet: nn.Module, schedule: NoiseSchedule, prompts: Conditioning, noise: Tensor, timesteps: Sequence[int]
) -> Iterator[Tensor]:
    """Draw a batch in coarse DDIM steps; yield the latents after each, (batch, c, h, w), fp32."""
    weight = next(unet.parameters())
    prompts, latents = prompts.to(weight), noise.to(weight.device)
    for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        steps = torch.full((len(prompts),), timestep, device=weight.device)
        predicted = predict(unet, latents.to(weight.dtype), steps, prompts)
        latents = ddim_step(schedule, latents, predicted.float(), timestep, following)
        yield latents


def noised(
    unet: nn.Module,
    schedule: NoiseSchedule,
    prompts: Conditioning,
    pictures: Sequence[Sequence[Tensor]],
    numbers: Sequence[int],
    config: MergeConfig,
) -> Iterator[Tensor]:
    """Show the base model pictures at stratified timesteps; yield the noisy latents after each pass.

    The schedule falls into config.timesteps parts of one length, noisiest first, and each prompt gets a
    timestep of its own from each: together they cover the schedule evenly, without a grid (stratified
    sampling). Several pictures of a prompt take turns from part to part.

    Args:
        unet: base model of diffusers.
        schedule: of its family.
        prompts: of the batch, encoded.
        pictures: of each prompt of the batch, at least one: latents as the UNet sees them, (c, h, w).
        numbers: of these prompts, which name their noise.
        config: timesteps and seed.

    Yields:
        Shape (batch, c, h, w), fp32.
    """
    weight = next(unet.parameters())
    prompts = prompts.to(weight)
    generators = [named_generator(f"calibration/{config.seed}/{number}") for number in numbers]
    highest = calibration_timesteps(config.timesteps, len(schedule.alphas_cumprod))
    for part, (high, low) in enumerate(zip(highest, [*highest[1:], -1], strict=True)):
        turns = zip(pictures, numbers, strict=True)
        clean = torch.stack([own[(number + part) % len(own)] for own, number in turns])
        steps = torch.cat([torch.randint(low + 1, high + 1, (1,), generator=each) for each in generators])
        noise = torch.stack([torch.randn(clean.shape[1:], generator=each) for each in generators])
        noisy = schedule.add_noise(clean, noise, steps)
        predict(unet, noisy.to(weight), steps.to(weight.device), prompts)
        yield noisy


def calibration_timesteps(num_steps: int, num_timesteps: int) -> list[int]:
    """Return timesteps spread evenly over the schedule, falling, the noisiest one included."""
    return [num_timesteps - 1 - i * num_timesteps // num_steps for i in range(num_steps)]


def ddim_step(
    schedule: NoiseSchedule, noisy: Tensor, predicted: Tensor, timestep: int, following: int | None
) -> Tensor:
    """Move latents from one noise level to a lower one along the predicted direction, without new noise.

    x_s = sqrt(a_s) x_0 + sqrt(1 - a_s) noise, with x_0 and noise as predicted at t (Song et al. 2021,
    arXiv:2010.02502, eq. 12 with sigma = 0).

    Args:
        schedule: tells what the model predicts.
        noisy: latents at `timestep`, (batch, c, h, w), fp32.
        predicted: output of the UNet for them, same shape, fp32.
        timestep: index in [0, 1000).
        following: lower index, or None for the clean latents.

    Returns:
        Latents at `following`, (batch, c, h, w), fp32.
    """
    alpha = schedule.alphas_cumprod[timestep]
    signal, sigma = float(alpha.sqrt()), float((1 - alpha).sqrt())
    if schedule.prediction_type == "epsilon":
        noise, clean = predicted, (noisy - sigma * predicted) / signal
    else:  # v = signal * noise - sigma * clean
        noise, clean = signal * predicted + sigma * noisy, signal * noisy - sigma * predicted
    if following is None:
        return clean
    alpha = schedule.alphas_cumprod[following]
    return float(alpha.sqrt()) * clean + float((1 - alpha).sqrt()) * noise


def starting_noise(prompts: Sequence[int], latent_shape: Sequence[int], seed: int) -> Tensor:
    """Draw each prompt's noise from its own generator, (batch, c, h, w): batches do not matter."""
    generators = [named_generator(f"calibration/{seed}/{prompt}") for prompt in prompts]
    return torch.stack([torch.randn(*latent_shape, generator=generator) for generator in generators])


NEUTRAL = ""  # the category of prompts on which nothing must change
_ROUND = 8  # prompts in a round where categories are unknown
_Pictured = defaultdict[str, list[Path]]  # distinct prompts, in order, and the pictures of each
_T = TypeVar("_T")


class CalibrationPrompts(NamedTuple):
    """What the experts are compared on.

    Attributes:
        prompts: encoded and run one by one.
        categories: which one each prompt was chosen for (`NEUTRAL`: for none); None where nobody said it.
        pictures: files of each prompt's pictures; None where prompts have none.
    """

    prompts: tuple[str, ...]
    categories: tuple[str, ...] | None
    pictures: tuple[tuple[Path, ...], ...] | None = None


def calibration_prompts(
    pairs: Iterable[PreferencePair], config: MergeConfig, neutral: Iterable[tuple[str, Path]] = ()
) -> CalibrationPrompts:
    """Choose calibration prompts from preference pairs.

    A category with fewer prompts than asked for repeats them, each time with other noise: otherwise
    its expert would count less for want of prompts. A method that needs neutral prompts gets as many
    of them, and as many safe ones. An unsafe prompt has both pictures of its pair, since an expert in use
    meets what lies between them.

    Args:
        pairs: of all categories to be merged; a pair of several categories serves each of them.
        config: prompts_per_category, and what the method needs.
        neutral: prompts of no category, each with its picture.

    Returns:
        prompts_per_category unsafe prompts per category, category by category in sorted order, each
        category in the order of the pairs; then, if needed, the neutral ones.

    Raises:
        ValueError: if there is no pair.
    """
    found: dict[str, _Pictured] = {}
    safe, other = _Pictured(list), _Pictured(list)
    for pair in pairs:
        safe[pair.safe_prompt] += [pair.winner]
        for category in pair.categories:
            found.setdefault(category, _Pictured(list))[pair.unsafe_prompt] += [pair.loser, pair.winner]
    for prompt, picture in neutral:
        other[prompt] += [picture]
    if not found:
        raise ValueError("calibration needs preference pairs with a category, got none.")
    chosen = [(name, found[name]) for name in sorted(found)]
    needed = MERGE_METHODS[config.method].needs_statistics
    if needed and needed.needs_categories:
        chosen += [(NEUTRAL, texts) for texts in (other, safe) if texts]
    rows = [
        (prompt, name, tuple(pictures))
        for name, texts in chosen
        for prompt, pictures in _repeated(texts.items(), config.prompts_per_category)
    ]
    return CalibrationPrompts(*zip(*rows, strict=True))


def rounds_of(num_prompts: int, categories: Sequence[str] | None, seed: int) -> list[list[int]]:
    """Return the order in which prompts run: in rounds, so that a pass that stops early has seen all kinds.

    Args:
        num_prompts: how many there are.
        categories: one per prompt; None shuffles the prompts, since nobody knows what they are of.
        seed: of the shuffle.

    Returns:
        Numbers of prompts. Where categories are known, a round holds one prompt of each that has some left.
    """
    if categories is None:
        order = torch.randperm(num_prompts, generator=named_generator(f"calibration order/{seed}")).tolist()
        return [order[start : start + _ROUND] for start in range(0, num_prompts, _ROUND)]
    rounds: list[list[int]] = []
    seen: dict[str, int] = {}
    for number, category in enumerate(categories):
        place = seen[category] = seen.get(category, -1) + 1
        if place == len(rounds):
            rounds.append([])
        rounds[place].append(number)
    return rounds


def _repeated(found: Iterable[_T], count: int) -> list[_T]:
    listed = list(found)
    return [listed[i % len(listed)] for i in range(count)]
