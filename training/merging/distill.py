"""Distillation: a merged LoRA learns to predict what each expert predicts, and elsewhere what the base does.

The other methods merge each layer apart, as if no other layer changed. This one starts from such a merge and
trains its factors by gradient descent on the calibration prompts (after Hinton et al. 2015, arXiv:1503.02531,
with one teacher per expert):

    min mean_e E_e ||eps_W - eps_e||^2 + neutral_weight E_0 ||eps_W - eps_base||^2

where eps_W is the prediction under the merged LoRA, eps_e that of the base with expert e at its strength, E_e
the mean over noised pictures of e's categories under their prompts, and E_0 that over neutral prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import MergeConfig
from ..experts.low_rank import LowRank, added_output
from ..models.conditioning import Conditioning, predict
from ..models.network import input_like, set_checkpointing
from ..models.noise import named_generator, squared_error
from ..system.tensors import check_finite
from .calibration_inputs import NEUTRAL, BaseNetwork, CalibrationInputs, base_passes
from .members import Members

_NEUTRAL_WEIGHT = 3.0  # our choice
_LEARNING_RATE = 2e-4  # our choice; falls to zero as a cosine
_TEACHERS = 8  # experts that a step asks, in turn
_ROWS = 2  # prompts of each of them in a step, and as many neutral ones
_BATCH = 4  # prompts that the base model draws at once
_NOT_FINITE = "The base model, an expert or a picture may be damaged; merge by regmean to leave this out."

_Factors = Mapping[str, tuple[Tensor, Tensor]]  # path of a layer -> up (d_out, rank), down (rank, d_in)


class Distilled(NamedTuple):
    """A merge after distillation.

    Attributes:
        layers: the trained updates.
        answered: share of what the experts change in the prediction (mean square, on their own prompts) that
            the merge changes too, in the last tenth of the steps; at most 1.
        moved: what it changes under neutral prompts, as a share of the same.
    """

    layers: dict[str, LowRank]
    answered: float
    moved: float


class _Rows(NamedTuple):
    """Noised pictures under their prompts."""

    noisy: Tensor  # (rows, c, h, w)
    timesteps: Tensor  # (rows,)
    prompts: Conditioning

    @classmethod
    def join(cls, *parts: _Rows) -> _Rows:
        """Return the rows of all parts, in their order."""
        noisy, timesteps, prompts = zip(*parts, strict=True)
        return cls(torch.cat(noisy), torch.cat(timesteps), Conditioning.concatenate(prompts))

    def first(self, count: int) -> _Rows:
        """Return the first rows."""
        return _Rows(*(column[:count] for column in self))


class _Teacher(NamedTuple):
    """An expert at its strength, and the numbers of its own prompts."""

    factors: _Factors
    own: Sequence[int]


def distill(
    base: BaseNetwork,
    inputs: CalibrationInputs,
    members: Members,
    layers: Mapping[str, LowRank],
    config: MergeConfig,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Distilled:
    """Train a merge on what its experts predict; the UNet comes back as it was.

    Cost: config.distill_steps steps. For each of up to eight experts, a step takes two predictions of the
    expert, four of the base model, and four of the merge with their gradient: about as much in all as
    training one expert.

    Args:
        base: the base model, of normal (not inference) tensors.
        inputs: those of the merge's statistics. Where prompts have no pictures, the base model draws them.
        members: the experts, with their strengths; each has prompts among the inputs.
        layers: the merge to start from, by path.
        config: distill_steps, timesteps and seed.
        on_progress: called with (steps done, steps); an exception raised by it ends the training.

    Raises:
        ValueError: if no prompt is neutral, or a prediction is not finite.
    """
    if NEUTRAL not in (inputs.categories or ()):
        raise ValueError(
            "distill needs prompts that are not to change beside those of the categories, got none. Use "
            "safety pairs for calibration, or add lines that begin with 'neutral: '."
        )
    device = input_like(base.unet).device
    sampler = _Sampler(base, _with_pictures(base, inputs, config), config.seed)
    teachers = [_teacher(member, sampler.inputs.categories, device) for member in members]
    student = {name: _on(layer, device, trainable=True) for name, layer in layers.items()}
    factors = [factor for pair in student.values() for factor in pair]
    optimizer = torch.optim.AdamW(factors, lr=_LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.distill_steps)
    errors = []
    with _trainable_through(base.unet), torch.enable_grad():
        for step in range(config.distill_steps):
            optimizer.zero_grad(set_to_none=True)
            errors.append(_accumulate(sampler, student, _asked(teachers, step)))
            optimizer.step()
            schedule.step()
            if on_progress:
                on_progress(step + 1, config.distill_steps)
    last = torch.stack(errors)[-max(1, len(errors) // 10) :].mean(0)
    from_experts, from_base, changed = last.tolist()
    trained = {name: LowRank(*_detached(pair)) for name, pair in student.items()}
    return Distilled(trained, 1 - from_experts / changed, from_base / changed)


def _asked(teachers: Sequence[_Teacher], step: int) -> list[_Teacher]:
    """Return the experts that a step asks: all, or the next few in turn."""
    count = min(_TEACHERS, len(teachers))
    return [teachers[(step * count + place) % len(teachers)] for place in range(count)]


def _accumulate(sampler: _Sampler, student: _Factors, teachers: Sequence[_Teacher]) -> Tensor:
    """Leave the gradient of a step in the student's factors.

    Returns:
        Mean squared differences of predictions, (3,): the merge from the experts on their prompts, the merge
        from the base on neutral prompts, and the experts from the base on their prompts.
    """
    unet, errors = sampler.base.unet, []
    for teacher in teachers:
        rows = _Rows.join(sampler.rows(teacher.own), sampler.rows(sampler.neutral))
        with torch.no_grad():
            of_base = predict(unet, *rows)
            with _added(unet, teacher.factors):
                of_expert = predict(unet, *rows.first(_ROWS))
        with _added(unet, student):  # also in the backward pass, where blocks may be computed again
            by_row = squared_error(predict(unet, *rows), torch.cat([of_expert, of_base[_ROWS:]]))
            from_expert, from_base = (part.mean() for part in by_row.split(_ROWS))
            ((from_expert + _NEUTRAL_WEIGHT * from_base) / len(teachers)).backward()
        changed = squared_error(of_expert, of_base[:_ROWS]).mean()
        errors.append(torch.stack([from_expert, from_base, changed]).detach())
    mean = torch.stack(errors).mean(0).cpu()
    check_finite(mean, "differences of the predictions in distillation", _NOT_FINITE)
    return mean


class _Sampler:
    """Draws prompts with noised pictures; the same ones for the same seed.

    Args:
        base: the base model.
        inputs: with pictures.
        seed: of the draws.
    """

    def __init__(self, base: BaseNetwork, inputs: CalibrationInputs, seed: int) -> None:
        self.base, self.inputs = base, inputs
        self.neutral = [number for number, name in enumerate(inputs.categories) if name == NEUTRAL]
        self._generator = named_generator(f"distill/{seed}")

    def rows(self, numbers: Sequence[int]) -> _Rows:
        """Return a few of the prompts with these numbers, each with one of its pictures."""
        chosen = [numbers[self._below(len(numbers))] for _ in range(_ROWS)]
        pictures = [self.inputs.pictures[number] for number in chosen]
        clean = torch.stack([of_prompt[self._below(len(of_prompt))] for of_prompt in pictures])
        noise = torch.randn(clean.shape, generator=self._generator)
        timesteps = torch.tensor([self._below(len(self.base.schedule)) for _ in chosen])
        like = input_like(self.base.unet)
        return _Rows(
            self.base.schedule.add_noise(clean, noise, timesteps).to(like),
            timesteps.to(like.device),
            self.inputs.prompts[torch.tensor(chosen)].to(like),
        )

    def _below(self, end: int) -> int:
        return int(torch.randint(end, (), generator=self._generator))


def _with_pictures(base: BaseNetwork, inputs: CalibrationInputs, config: MergeConfig) -> CalibrationInputs:
    """Return inputs whose prompts have pictures, drawn in config.timesteps steps if there were none."""
    if inputs.pictures is not None:
        return inputs
    pictures: list[list[Tensor]] = []
    numbers = range(len(inputs.prompts))
    with torch.no_grad():
        for start in range(0, len(numbers), _BATCH):
            part = list(numbers[start : start + _BATCH])
            *_, drawn = base_passes(base, inputs.batch(part), part, config)
            pictures += [[latent] for latent in drawn.float().cpu()]
    return replace(inputs, pictures=pictures)


def _teacher(member: tuple, categories: Sequence[str], device: torch.device) -> _Teacher:
    expert, strength = member
    own = [number for number, name in enumerate(categories) if name and name in expert.categories]
    factors = {name: _on(layer.scaled(strength), device) for name, layer in expert.layers.items()}
    return _Teacher(factors, own)


def _on(layer: LowRank, device: torch.device, trainable: bool = False) -> tuple[Tensor, Tensor]:
    up, down = (
        factor.detach().to(device, torch.float32, copy=trainable) for factor in (layer.up, layer.down)
    )
    return up.requires_grad_(trainable), down.requires_grad_(trainable)


def _detached(pair: tuple[Tensor, Tensor]) -> Iterator[Tensor]:
    return (factor.detach().cpu() for factor in pair)


@contextmanager
def _added(unet: nn.Module, factors: _Factors) -> Iterator[None]:
    """Add the updates of layers to what the layers compute, within the context."""
    handles = [
        unet.get_submodule(name).register_forward_hook(_adding(*pair)) for name, pair in factors.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adding(up: Tensor, down: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0]
        return output + added_output(module, x, up.to(x.dtype), down.to(x.dtype))

    return add


@contextmanager
def _trainable_through(unet: nn.Module) -> Iterator[None]:
    """Let gradients pass a network whose own weights get none; on a GPU its blocks are computed again."""
    wanted = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        set_checkpointing(unet, "none" if input_like(unet).device.type == "cpu" else "full")
        yield
    finally:
        set_checkpointing(unet, "none")
        for parameter in wanted:
            parameter.requires_grad_(True)
