"""Merging experts into one LoRA. To add a method: write its file, then add its line in `methods`.

A method merges one layer: f(parts: Sequence[LowRank], ...) -> MergedLayer. It gets the experts' updates of
that layer with the strengths folded in, and zero for an expert that does not change the layer. It also gets
what its line declares, by keyword: `options` of `MergeConfig`; `statistics` of the layer, from calibration;
and `generators`, one per part, if it is random. A single expert is returned as it is, by every method. What a
method that `is_distilled` gives is then trained further, by `distill`.

The order of the methods is that of the widget: append, never reorder, never rename (saved graphs store the
name).
"""

from collections.abc import Callable, Mapping, Sequence

from ..config import MergeConfig
from ..experts.expert import SafetyExpert
from ..experts.low_rank import LowRank
from ..models.noise import named_generator
from ..rules.categories import normalize_categories
from .calibrate import collect_statistics
from .calibration_inputs import BaseNetwork, CalibrationInputs
from .calibration_prompts import CalibrationPrompts, calibration_prompts, listed_prompts
from .distill import Distilled, distill
from .layer import MergedLayer, as_low_rank, rows_won
from .members import Members, warn_of_bases, warn_of_initial_a
from .metadata import calibration, distillation, energy, provenance, sizes
from .methods import MERGE_METHODS, MergeMethod, calibrated_methods, needs_statistics, plain_methods
from .statistics import Statistics, StatisticsStore, check_statistics

__all__ = [
    "MERGE_METHODS",
    "BaseNetwork",
    "CalibrationInputs",
    "CalibrationPrompts",
    "Distilled",
    "Members",
    "MergeMethod",
    "Statistics",
    "StatisticsStore",
    "calibrated_methods",
    "calibration_prompts",
    "collect_statistics",
    "distill",
    "listed_prompts",
    "merge_experts",
    "needs_statistics",
    "plain_methods",
]


def merge_experts(
    experts: Sequence[SafetyExpert],
    config: MergeConfig,
    *,
    strengths: Sequence[float] | None = None,
    calibrate: Callable[[Members], Statistics] | None = None,
    distilled: Callable[[Members, Mapping[str, LowRank]], Distilled] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> SafetyExpert:
    """Merge experts of one base model into one LoRA.

    Args:
        experts: at least one. An expert counts as zero in a layer that it does not change.
        config: method, output_rank, normalize, and the options that the method declares are read.
        strengths: one per expert, in [0, 2]; None means 1 for all. An expert at 0 takes no part.
        calibrate: returns the statistics of the experts that take part, usually by `collect_statistics`.
            It is called once, and only if the method needs statistics and more than one expert takes part.
            Statistics may be used again for another output_rank and, with the same options, for other
            strengths.
        distilled: trains the merged layers further, usually by `distill`; called once, and only if the method
            is distilled and more than one expert takes part.
        on_progress: called with (layers done, layers); an exception raised by it ends the merge.

    Returns:
        An expert of all categories. Its metadata names the members and states, per layer, how many neurons
        each member won and the share of energy kept. Members of different base models are allowed; the
        metadata says so, and a warning is logged.

    Raises:
        ValueError: if the method is unknown, the experts do not fit each other, a strength is out of range,
            or the statistics are missing or of another calibration.
    """
    method = _method(config.method)
    members = Members.of(experts, strengths)
    warn_of_bases(members)
    statistics = _statistics(method, members, config, calibrate)
    merge_layer = _layer_merger(method, members, config, statistics)
    layers: dict[str, LowRank] = {}
    winners: dict[str, list[int]] = {}
    kept: dict[str, float] = {}
    norms: dict[str, list[float]] = {}
    for module in members.shapes:
        parts = members.parts(module)
        merged = merge_layer(parts, module)
        norms[module] = [part.norm() for part in parts]
        layers[module], kept[module] = as_low_rank(merged, parts, config.output_rank)
        if merged.winners is not None:
            winners[module] = rows_won(merged.winners, len(members))
        if on_progress:
            on_progress(len(layers), len(members.shapes))
    metadata = provenance(members, config) | sizes(norms) | energy(layers, kept)
    if statistics is not None:
        metadata |= calibration(config, statistics, winners)
    if method.is_distilled and len(members) > 1:
        layers, facts = _distilled(members, layers, config, distilled)
        metadata |= facts
    categories = normalize_categories(name for member in members for name in member.expert.categories)
    name = f"{config.method} of {len(members)} expert{'s' * (len(members) > 1)}"
    return SafetyExpert(layers, categories, members.entries[0].expert.family, metadata, name)


def _distilled(
    members: Members,
    layers: Mapping[str, LowRank],
    config: MergeConfig,
    distilled: Callable[[Members, Mapping[str, LowRank]], Distilled] | None,
) -> tuple[Mapping[str, LowRank], dict[str, str]]:
    """Return the layers after distillation, and what the file says of it."""
    if distilled is None:
        raise ValueError(
            f"{config.method} trains the merge on the base model. Pass `distilled`, or set method to regmean."
        )
    trained, answered, moved = distilled(members, layers)
    return trained, distillation(config, answered, moved)


def _method(name: str) -> MergeMethod:
    if name not in MERGE_METHODS:
        raise ValueError(f"method must be one of {', '.join(MERGE_METHODS)}, got {name!r}.")
    return MERGE_METHODS[name]


def _statistics(
    method: MergeMethod,
    members: Members,
    config: MergeConfig,
    calibrate: Callable[[Members], Statistics] | None,
) -> Statistics | None:
    """Return the statistics that the merge needs, or None."""
    if not needs_statistics(config.method, len(members)):
        return None
    if calibrate is None:
        raise ValueError(
            f"{config.method} of {len(members)} experts needs calibration on the base model. Pass "
            f"`calibrate`, or set method to one of {plain_methods()}."
        )
    statistics = calibrate(members)
    check_statistics(statistics, members, config)
    if config.level == "rowpick_AB" and "level" in method.options:
        warn_of_initial_a(members)
    return statistics


def _layer_merger(
    method: MergeMethod, members: Members, config: MergeConfig, statistics: Statistics | None
) -> Callable[[Sequence[LowRank], str], MergedLayer]:
    """Return the method as a function of a layer's parts and path, with all that it declares bound."""
    if len(members) == 1:
        return lambda parts, module: MergedLayer(parts[0])
    options = {name: getattr(config, name) for name in method.options}
    # Generators are assigned by size: neither the order of the experts nor their key dialect matters.
    order = members.size_order() if method.is_random else []

    def merge(parts: Sequence[LowRank], module: str) -> MergedLayer:
        extra: dict[str, object] = {}
        if statistics is not None:
            extra["statistics"] = statistics.at(members, module)
        if method.is_random:
            extra["generators"] = [named_generator(f"merge/{config.seed}/{module}/{i}") for i in order]
        return method.merge(parts, **options, **extra)

    return merge
