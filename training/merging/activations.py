"""Co-merge statistics: how active each expert is in each neuron, from one pass of the base model.

Hooks on the layers the experts change read each layer's input; all experts are evaluated on it there
and then, and only counters are kept (three numbers per expert and neuron).
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..conditioning import Conditioning, predict
from ..config import MergeConfig
from ..expert import SafetyExpert
from ..lora_keys import coverage
from ..low_rank import LowRank
from ..noise import NoiseSchedule, named_generator
from .co_merge import LayerStatistics, activity
from .members import Member, expert_size, layer_parts, layer_shapes, members_of


@dataclass(frozen=True, eq=False)  # holds tensors
class Statistics:
    """What calibration found, and for which experts; small enough to keep.

    Attributes:
        layers: by diffusers path, on the CPU.
        members: content hash of each expert, in their order.
        strengths: of the same experts, as they were folded in.
        normalize: whether activities were divided by the size of each expert.
        calibration_hash: SHA-256 of prompts, timesteps, noise seed and schedule.
        num_inputs: prompts times timesteps.
    """

    layers: Mapping[str, LayerStatistics]
    members: tuple[str, ...]
    strengths: tuple[float, ...]
    normalize: bool
    calibration_hash: str
    num_inputs: int


def collect_statistics(
    unet: nn.Module,
    schedule: NoiseSchedule,
    experts: Sequence[SafetyExpert],
    prompts: Conditioning,
    config: MergeConfig,
    *,
    latent_shape: Sequence[int],
    strengths: Sequence[float] | None = None,
    batch_size: int = 4,
    on_progress: Callable[[int, int], None] | None = None,
) -> Statistics:
    """Run the base model on the calibration prompts and count how active each expert is.

    Each prompt is drawn by the base model itself in config.timesteps coarse DDIM steps from its own
    noise, so every noise level is met with the latents the model meets it with, and no image is
    needed or decoded. Cost: prompts * timesteps forward passes, whatever the number of experts.

    Args:
        unet: base model of diffusers without an adapter; not changed.
        schedule: of its family.
        experts: those to be merged.
        prompts: the calibration prompts, encoded, a row each.
        config: timesteps, normalize and seed are used.
        latent_shape: (c, h, w) of one latent.
        strengths: one per expert, in [0, 2]; None is 1 for all.
        batch_size: prompts in memory at once; it does not change the result beyond rounding.
        on_progress: called with (inputs done, inputs); what it raises ends the pass.

    Raises:
        ValueError: if the experts do not fit each other or the model, or there is no prompt.
    """
    if not len(prompts):
        raise ValueError("co-merge needs at least one calibration prompt, got none.")
    members = members_of(experts, strengths)
    readers = _readers(unet, members, config.normalize)
    counters: dict[str, LayerStatistics] = {}
    timesteps = calibration_timesteps(config.timesteps, len(schedule.alphas_cumprod))
    total, done = len(prompts) * len(timesteps), 0
    with torch.no_grad(), _reading(unet, readers, counters):
        for start in range(0, len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            noise = _noise(range(start, start + len(batch)), latent_shape, config.seed)
            for _ in _draw(unet, schedule, batch, noise, timesteps):
                done += len(batch)
                if on_progress:
                    on_progress(done, total)
    return Statistics(
        layers={module: counters[module].to("cpu") for module in readers},
        members=tuple(member.expert.content_hash for member in members),
        strengths=tuple(member.strength for member in members),
        normalize=config.normalize,
        calibration_hash=_calibration_hash(prompts, latent_shape, timesteps, config.seed, schedule),
        num_inputs=total,
    )


def _draw(
    unet: nn.Module, schedule: NoiseSchedule, prompts: Conditioning, noise: Tensor, timesteps: Sequence[int]
) -> Iterator[Tensor]:
    """Yield the latents of a batch after each DDIM step, (batch, c, h, w), fp32."""
    weight = next(unet.parameters())
    prompts, latents = prompts.to(weight), noise.to(weight.device)
    for timestep, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        steps = torch.full((len(prompts),), timestep, device=weight.device)
        predicted = predict(unet, latents.to(weight.dtype), steps, prompts)
        latents = ddim_step(schedule, latents, predicted.float(), timestep, following)
        yield latents


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


def _readers(unet: nn.Module, members: Sequence[Member], normalize: bool) -> dict[str, list[LowRank]]:
    """Return each layer's updates, one per expert, on the model's device; refuse a model they do not fit."""
    device = next(unet.parameters()).device
    shapes = layer_shapes(members)
    _check_model(unet, shapes)
    scales = [1 / _size(member) if normalize else 1.0 for member in members]
    readers = {}
    for module, shape in shapes.items():
        parts = [p.scaled(s) for p, s in zip(layer_parts(members, module, shape), scales, strict=True)]
        readers[module] = [LowRank(part.up.to(device), part.down.to(device)) for part in parts]
    return readers


def _size(member: Member) -> float:
    """Return the Frobenius norm of the whole expert, 1 for a zero one: a size known before the pass."""
    return member.strength * expert_size(member.expert) or 1.0


def _check_model(unet: nn.Module, shapes: Mapping[str, tuple[int, int]]) -> None:
    weights = {name: module.weight for name, module in unet.named_modules() if name in shapes}
    found = coverage(shapes, weights)
    if found.missing:
        raise ValueError(f"the model does not fit the experts to be merged. {found.sentence()}")
    for module, shape in shapes.items():
        own = tuple(weights[module].shape[:2])
        if own != shape:
            raise ValueError(
                f"the experts change {module} of shape {shape}, but in this model it is {own}. "
                "Connect the base model the experts were trained for."
            )


@contextmanager
def _reading(
    unet: nn.Module, readers: Mapping[str, Sequence[LowRank]], counters: dict[str, LayerStatistics]
) -> Iterator[None]:
    """Count what the layers get while the context lasts; also after an error, the hooks are taken off."""

    def hook_for(module: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def count(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            new = LayerStatistics.of(activity(_tokens(args[0]).float(), readers[module]))
            counters[module] = counters[module].plus(new) if module in counters else new

        return count

    handles = [unet.get_submodule(module).register_forward_pre_hook(hook_for(module)) for module in readers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tokens(inputs: Tensor) -> Tensor:
    """Bring what a layer gets to (batch, tokens, d_in)."""
    if inputs.ndim == 4:  # 1x1 convolution: (batch, d_in, h, w), a pixel is a token
        return inputs.flatten(2).transpose(1, 2)
    return inputs[:, None] if inputs.ndim == 2 else inputs  # the timestep embedding has no tokens


def _noise(prompts: Sequence[int], latent_shape: Sequence[int], seed: int) -> Tensor:
    """Draw each prompt's noise from its own generator, (batch, c, h, w): batches do not matter."""
    generators = [named_generator(f"calibration/{seed}/{prompt}") for prompt in prompts]
    return torch.stack([torch.randn(*latent_shape, generator=generator) for generator in generators])


def _calibration_hash(
    prompts: Conditioning,
    latent_shape: Sequence[int],
    timesteps: Sequence[int],
    seed: int,
    schedule: NoiseSchedule,
) -> str:
    digest = hashlib.sha256(f"{tuple(latent_shape)} {timesteps} {seed} {schedule.prediction_type}".encode())
    for tensor in (*prompts.tensors, schedule.alphas_cumprod):
        digest.update(f"{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()
