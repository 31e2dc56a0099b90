"""The latents that calibration shows the base model: drawn by itself, or of pictures with noise added.

Pictures are used where there are some: on the mini model (seven experts, three seeds, 168 pictures of each
kind) merges from them left an IP on unseen words of 0.26 against 0.28 with `regmean` and 0.71 against 0.73
with `co_merge`, and 0.00 and 0.42 against 0.00 and 0.44 on words of the pairs. Of what must be kept 194 of
195 were right against 195 with `regmean`, 191 against 189 with `co_merge`: no difference that this many
pictures show. For `regmean` the unsafe, the safe or both pictures of a pair did equally well (one seed).
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..config import MergeConfig
from ..models.conditioning import Conditioning, predict
from ..models.noise import NoiseSchedule, named_generator


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
