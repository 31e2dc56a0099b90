"""Statistics of the base model that calibrated methods need, from one pass that serves all experts.

Hooks on the layers the experts change hand each layer's input to the method's collector, which keeps only
what the method needs of it.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import MergeConfig
from ..experts.expert import SafetyExpert
from ..experts.lora_keys import coverage
from ..experts.low_rank import LowRank
from ..models.conditioning import Conditioning
from ..models.noise import NoiseSchedule
from .calibration_inputs import base_passes, rounds_of
from .collector import Collector
from .members import Member, layer_parts, layer_shapes, members_of
from .methods import MERGE_METHODS, calibrated_methods
from .statistics import Statistics, StatisticsStore

_FIRST_CHECK = 8  # rounds before halves are compared; fewer agree by chance


def collect_statistics(
    unet: nn.Module,
    schedule: NoiseSchedule,
    experts: Sequence[SafetyExpert],
    prompts: Conditioning,
    config: MergeConfig,
    *,
    latent_shape: Sequence[int],
    strengths: Sequence[float] | None = None,
    categories: Sequence[str] | None = None,
    pictures: Sequence[Sequence[Tensor]] | None = None,
    base_hash: str = "",
    batch_size: int = 4,
    store: StatisticsStore | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Statistics:
    """Run the base model on the calibration prompts and keep what the method must know.

    The latents are those of the prompts' pictures with noise added at config.timesteps stratified
    timesteps or, where there are none, what the base model draws itself in as many coarse DDIM steps.
    Cost: prompts * timesteps forward passes, whatever the number of experts. The pass ends early once the
    choices on its two halves agree to config.stop_agreement.

    Args:
        unet: base model of diffusers without an adapter; not changed.
        schedule: of its family.
        experts: those to be merged.
        prompts: the calibration prompts, encoded, a row each.
        config: method, timesteps, seed, stop_agreement, and what the method's collector reads.
        latent_shape: (c, h, w) of one latent.
        strengths: one per expert, in [0, 2]; None is 1 for all.
        categories: what each prompt stands for, see `CalibrationPrompts`; None if nobody knows.
        pictures: latents of each prompt's pictures as the UNet sees them, each of latent_shape; None draws.
        base_hash: name of the base model's weights, for the file's metadata.
        batch_size: prompts in memory at once; it does not change the result beyond rounding.
        store: where the same calibration may be kept already, and will be kept.
        on_progress: called with (inputs done, inputs); what it raises ends the pass.

    Raises:
        ValueError: if the experts do not fit each other or the model, there is no prompt, or the method
            needs no statistics, or categories that are not given.
    """
    if not len(prompts):
        raise ValueError("calibration needs at least one calibration prompt, got none.")
    members = members_of(experts, strengths)
    shown = _Shown(prompts, categories, pictures, tuple(latent_shape))
    named = _calibration_hash(shown, config, schedule)
    readers, kind = _readers(unet, members), _collector_of(config)
    file = store and _file_of(store, unet, members, named, config)
    if store and (kept := store.read(file, kind)):
        return kept
    collector = kind(members, readers, categories, config)
    with torch.no_grad(), _reading(unet, readers, collector):
        num_inputs = _show(unet, schedule, shown, config, collector, batch_size, on_progress)
    statistics = _statistics(collector, num_inputs, members, shown, config, named, base_hash)
    if store:
        store.write(file, statistics)
    return statistics


class _Shown(NamedTuple):
    """What calibration shows the base model; see `collect_statistics`."""

    prompts: Conditioning
    categories: Sequence[str] | None
    pictures: Sequence[Sequence[Tensor]] | None
    latent_shape: tuple[int, ...]


def _file_of(
    store: StatisticsStore, unet: nn.Module, members: Sequence[Member], named: str, config: MergeConfig
) -> Path:
    kind = _collector_of(config)
    told = [(member.expert.content_hash, member.expert.categories) for member in members]
    return store.path(config, kind, named, told, next(unet.parameters()).dtype)


def _show(
    unet: nn.Module,
    schedule: NoiseSchedule,
    shown: _Shown,
    config: MergeConfig,
    collector: Collector,
    batch_size: int,
    on_progress: Callable[[int, int], None] | None,
) -> int:
    """Run the base model on every batch, telling the collector what it will read; return how many inputs."""
    prompts, categories, pictures, latent_shape = shown
    num_inputs = 0
    rounds = rounds_of(len(prompts), categories, config.seed)
    for batch, number in _batches(rounds, batch_size, collector, config.stop_agreement):
        own = None if categories is None else [categories[i] for i in batch]
        collector.begin(number, own)
        seen = pictures and [pictures[i] for i in batch]
        encoded = prompts[torch.tensor(batch)]
        for _ in base_passes(
            unet, schedule, encoded, batch, config, latent_shape=latent_shape, pictures=seen
        ):
            collector.begin(number, own)
            num_inputs += len(batch)
            if on_progress:
                on_progress(num_inputs, len(prompts) * config.timesteps)
    return num_inputs


def _batches(
    rounds: Sequence[Sequence[int]], batch_size: int, collector: Collector, enough: float
) -> Iterator[tuple[Sequence[int], int]]:
    """Yield (numbers of prompts, number of the round), until the halves agree; a batch has one round."""
    for number, prompts in enumerate(rounds):
        for start in range(0, len(prompts), batch_size):
            yield prompts[start : start + batch_size], number
        if number % 2 and _FIRST_CHECK <= number + 1 < len(rounds) and enough < 1:
            found = collector.agreement()
            if found is not None and found >= enough:
                return


def _statistics(
    collector: Collector,
    num_inputs: int,
    members: Sequence[Member],
    shown: _Shown,
    config: MergeConfig,
    named: str,
    base_hash: str,
) -> Statistics:
    return Statistics(
        layers=collector.layers(),
        members=tuple(member.expert.content_hash for member in members),
        normalize=config.normalize,
        calibration_hash=named,
        num_inputs=num_inputs,
        kind=collector.kind,
        agreement=collector.agreement(),
        latent_shape=shown.latent_shape,
        base_hash=base_hash,
        from_pictures=shown.pictures is not None,
    )


def _collector_of(config: MergeConfig) -> type[Collector]:
    collector = MERGE_METHODS[config.method].needs_statistics
    if collector is None:
        raise ValueError(f"{config.method} needs no statistics; only these do: {calibrated_methods()}.")
    return collector


def _readers(unet: nn.Module, members: Sequence[Member]) -> dict[str, list[LowRank]]:
    """Return each layer's updates at strength 1, on the model's device; refuse a model they do not fit."""
    device = next(unet.parameters()).device
    shapes = layer_shapes(members)
    _check_model(unet, shapes)
    trained = [member._replace(strength=1.0) for member in members]
    return {
        module: [LowRank(p.up.to(device), p.down.to(device)) for p in layer_parts(trained, module, shape)]
        for module, shape in shapes.items()
    }


def _check_model(unet: nn.Module, shapes: Mapping[str, tuple[int, int]]) -> None:
    weights = {name: module.weight for name, module in unet.named_modules() if name in shapes}
    found = coverage(shapes, weights)
    if found.missing:
        raise ValueError(f"the model does not fit the experts to be merged. {found.sentence()}")
    for module, shape in shapes.items():
        own = (len(weights[module]), weights[module][0].numel())  # of a convolution: channels * kernel
        if own != shape:
            raise ValueError(
                f"the experts change {module} of shape {shape}, but in this model it is {own}. "
                "Connect the base model the experts were trained for."
            )


@contextmanager
def _reading(unet: nn.Module, modules: Iterable[str], collector: Collector) -> Iterator[None]:
    """Give the collector what the layers get while the context lasts; the hooks always come off again."""

    def hook_for(module: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda layer, args: collector.add(module, _patches(layer, args[0]))

    handles = [unet.get_submodule(module).register_forward_pre_hook(hook_for(module)) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _patches(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return what a wide convolution multiplies, (batch, channels * kernel, 1, pixels); others' as it is."""
    if not isinstance(layer, nn.Conv2d) or layer.kernel_size == (1, 1):
        return inputs
    patches = F.unfold(inputs, layer.kernel_size, padding=layer.padding, stride=layer.stride)
    return patches[:, :, None]


def _calibration_hash(shown: _Shown, config: MergeConfig, schedule: NoiseSchedule) -> str:
    prompts, categories, pictures, latent_shape = shown
    told = f"{latent_shape} {config.timesteps} {config.seed} {schedule.prediction_type} {categories}"
    digest = hashlib.sha256(f"{told} {pictures and [len(own) for own in pictures]}".encode())
    latents = [each for own in pictures or () for each in own]
    for tensor in (*prompts.tensors, schedule.alphas_cumprod, *latents):
        digest.update(f"{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()
