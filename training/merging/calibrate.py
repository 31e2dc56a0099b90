"""Calibration: one pass of the base model that collects the statistics of all experts.

Hooks on the layers that the experts change pass each layer's inputs to the collector of the merge method,
which keeps only what the method needs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import MergeConfig
from ..experts.lora_keys import coverage
from ..experts.low_rank import LowRank
from ..models.network import input_like
from ..system.tensors import check_finite
from .calibration_inputs import BaseNetwork, CalibrationInputs, base_passes, rounds_of
from .collector import NOT_FINITE, Collector
from .members import Members
from .methods import MERGE_METHODS, calibrated_methods
from .statistics import Statistics, StatisticsStore

_FIRST_CHECK = 8  # rounds before the halves are compared; fewer may agree by chance


def collect_statistics(
    base: BaseNetwork,
    inputs: CalibrationInputs,
    members: Members,
    config: MergeConfig,
    *,
    batch_size: int = 4,
    store: StatisticsStore | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Statistics:
    """Run the base model on the calibration inputs and collect what the merge method needs.

    Cost: one forward pass a prompt, or config.timesteps passes where prompts have no pictures, whatever the
    number of experts. The pass ends early once the choices on its two halves agree to config.stop_agreement.

    Args:
        base: the base model of the experts.
        inputs: encoded prompts and their latents.
        members: the experts of the merge; their strengths do not matter.
        config: method, timesteps, seed, stop_agreement, and the options of the method's collector.
        batch_size: prompts per forward pass; it does not change the result beyond rounding.
        store: cache to look the statistics up in, and to write them to.
        on_progress: called with (inputs done, inputs); an exception raised by it ends the pass.

    Raises:
        ValueError: if the experts do not fit the model, there is no prompt, the method needs no statistics,
            it needs categories and they are unknown, or a latent or a statistic is not finite.
    """
    if not len(inputs.prompts):
        raise ValueError("calibration needs at least one calibration prompt, got none.")
    calibration_hash = inputs.calibration_hash(base.schedule, config)
    parts = _parts_on_model(base.unet, members)
    collector_type = _collector_type(config)
    if store:
        path = store.path(collector_type, config, *_facts_of_entry(base, members, calibration_hash))
        statistics = store.read(path, collector_type)
        if statistics is not None:
            return replace(statistics, neutral=inputs.neutral)
    collector = collector_type(members, parts, inputs.categories, config)
    with torch.no_grad(), _reading(base.unet, parts, collector):
        num_inputs = _run(base, inputs, collector, config, batch_size, on_progress)
    statistics = Statistics(
        layers=collector.layers(),
        members=members.content_hashes,
        normalize=config.normalize,
        calibration_hash=calibration_hash,
        num_inputs=num_inputs,
        kind=collector.kind,
        agreement=collector.agreement(),
        latent_shape=inputs.latent_shape,
        base_hash=base.weights_hash,
        from_pictures=inputs.pictures is not None,
        neutral=inputs.neutral,
    )
    if store:
        store.write(path, statistics)
    return statistics


def _collector_type(config: MergeConfig) -> type[Collector]:
    collector_type = MERGE_METHODS[config.method].collector
    if collector_type is None:
        raise ValueError(f"{config.method} needs no statistics; only these do: {calibrated_methods()}.")
    return collector_type


def _facts_of_entry(base: BaseNetwork, members: Members, calibration_hash: str) -> tuple[object, ...]:
    """Return what decides the statistics beside the options of the collector."""
    experts = [(expert.content_hash, expert.categories) for expert, _ in members]
    return base.weights_hash, calibration_hash, experts, input_like(base.unet).dtype


def _run(
    base: BaseNetwork,
    inputs: CalibrationInputs,
    collector: Collector,
    config: MergeConfig,
    batch_size: int,
    on_progress: Callable[[int, int], None] | None,
) -> int:
    """Run the base model on every batch and announce each forward pass; return the number of inputs."""
    num_prompts, num_inputs = len(inputs.prompts), 0
    if inputs.prompts.lengths is not None:
        batch_size = 1  # a network runs rows of unequal length apart, and a hook must see its batch whole
    rounds = rounds_of(num_prompts, inputs.categories, config.seed)
    for numbers, round_number in _batches(rounds, batch_size, collector, config.stop_agreement):
        batch = inputs.batch(numbers)
        collector.begin(round_number, batch.categories)
        for number, latents in enumerate(base_passes(base, batch, numbers, config), start=1):
            check_finite(latents, f"latents of the base model in calibration pass {number}", NOT_FINITE)
            collector.begin(round_number, batch.categories)  # the next forward pass
            num_inputs += len(numbers)
            if on_progress:
                on_progress(num_inputs, num_prompts * inputs.num_passes(config))
    return num_inputs


def _batches(
    rounds: Sequence[Sequence[int]], batch_size: int, collector: Collector, stop_agreement: float
) -> Iterator[tuple[Sequence[int], int]]:
    """Yield (numbers of prompts, number of their round) until the halves agree."""
    for round_number, prompts in enumerate(rounds):
        for start in range(0, len(prompts), batch_size):
            yield prompts[start : start + batch_size], round_number
        if round_number % 2 and _FIRST_CHECK <= round_number + 1 < len(rounds) and stop_agreement < 1:
            agreement = collector.agreement()
            if agreement is not None and agreement >= stop_agreement:
                return


def _parts_on_model(unet: nn.Module, members: Members) -> dict[str, list[LowRank]]:
    """Return the parts of each layer at strength 1, on the model's device; raise if they do not fit it."""
    _check_model(unet, members)
    device = next(unet.parameters()).device
    trained = members.at_strength_one()
    return {
        module: [LowRank(part.up.to(device), part.down.to(device)) for part in trained.parts(module)]
        for module in members.shapes
    }


def _check_model(unet: nn.Module, members: Members) -> None:
    weights = {name: module.weight for name, module in unet.named_modules() if name in members.shapes}
    covered = coverage(members.shapes, weights)
    if covered.missing:
        raise ValueError(f"the model does not fit the experts to be merged. {covered.sentence()}")
    for module, shape in members.shapes.items():
        model_shape = (len(weights[module]), weights[module][0].numel())  # convolution: channels * kernel
        if model_shape != shape:
            raise ValueError(
                f"the experts change {module} of shape {shape}, but in this model it is {model_shape}. "
                "Connect the base model the experts were trained for."
            )


@contextmanager
def _reading(unet: nn.Module, modules: Iterable[str], collector: Collector) -> Iterator[None]:
    """Pass the inputs of the layers to the collector within the context; always remove the hooks."""

    def hook_for(module: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda layer, args: collector.add(module, _patches(layer, args[0]))

    handles = [unet.get_submodule(module).register_forward_pre_hook(hook_for(module)) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _patches(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Unfold the inputs of a wide convolution to (batch, channels * kernel, 1, pixels); pass others on."""
    if not isinstance(layer, nn.Conv2d) or layer.kernel_size == (1, 1):
        return inputs
    patches = F.unfold(inputs, layer.kernel_size, padding=layer.padding, stride=layer.stride)
    return patches[:, :, None]
