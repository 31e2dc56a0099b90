"""Merging experts into one. To add a method: write its file, then add its line in `methods`.

A method merges one layer: f(parts: Sequence[LowRank], ...) -> MergedLayer, the experts' updates of that
layer in, strengths folded and missing ones zero. By keyword it gets what its line declares: `options`
of `MergeConfig`, `statistics` of the layer, and `generators`, one per part, if it is random. A single
expert never reaches it.

The order is the order of the widget: append, never reorder, never rename (saved graphs store the name).
"""

from collections.abc import Callable, Sequence

from ..config import MergeConfig
from ..experts.expert import SafetyExpert
from ..experts.low_rank import LowRank
from ..models.noise import named_generator
from ..rules.categories import normalize_categories
from .calibrate import collect_statistics
from .calibration_inputs import CalibrationPrompts, calibration_prompts
from .layer import MergedLayer, as_low_rank, rows_won
from .members import (
    Member,
    layer_parts,
    layer_shapes,
    members_of,
    size_order,
    warn_of_bases,
    warn_of_initial_a,
)
from .metadata import calibration, energy, provenance, sizes
from .methods import MERGE_METHODS, MergeMethod, calibrated_methods, plain_methods
from .statistics import Statistics, StatisticsStore, check_statistics

__all__ = [
    "MERGE_METHODS",
    "CalibrationPrompts",
    "MergeMethod",
    "Statistics",
    "StatisticsStore",
    "calibrated_methods",
    "calibration_prompts",
    "collect_statistics",
    "merge_experts",
    "plain_methods",
]


def merge_experts(
    experts: Sequence[SafetyExpert],
    config: MergeConfig,
    *,
    strengths: Sequence[float] | None = None,
    statistics: Statistics | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> SafetyExpert:
    """Merge experts of one base model into one LoRA; needs no base model itself.

    Args:
        experts: at least one. A layer only some of them have counts as zero in the others.
        config: method, output_rank, normalize, and what the method declares are used.
        strengths: one per expert, in [0, 2]; None is 1 for all. An expert at 0 takes no part.
        statistics: from `collect_statistics` with the same experts; only for methods that need them, and
            only for more than one expert. Those of another rank and of other strengths may be used again.
        on_progress: called with (layers done, layers); what it raises ends the merge.

    Returns:
        An expert of all categories. Its metadata names the members, and per layer how many neurons each
        won and the energy kept. Members of different base models are allowed, said there and logged.

    Raises:
        ValueError: for an unknown method, experts that do not fit each other, a strength out of range, or
            statistics that are missing or of another calibration.
    """
    method = _method(config.method)
    members = members_of(experts, strengths)
    shapes = layer_shapes(members)
    warn_of_bases(members)
    if method.needs_statistics and len(members) > 1:
        check_statistics(statistics, members, config)
        if config.level == "rowpick_AB" and "level" in method.options:
            warn_of_initial_a(members)
    merge_layer = _merger(method, members, config, statistics)
    layers: dict[str, LowRank] = {}
    winners: dict[str, list[int]] = {}
    kept: dict[str, float] = {}
    norms: dict[str, list[float]] = {}
    for module, shape in shapes.items():
        parts = layer_parts(members, module, shape)
        merged = merge_layer(parts, module)
        norms[module] = [part.norm() for part in parts]
        layers[module], kept[module] = as_low_rank(merged, parts, config.output_rank)
        if merged.winners is not None:
            winners[module] = rows_won(merged.winners, len(members))
        if on_progress:
            on_progress(len(layers), len(shapes))
    metadata = provenance(members, config) | sizes(norms) | energy(layers, kept)
    if method.needs_statistics and len(members) > 1:
        metadata |= calibration(config, statistics, winners)
    categories = normalize_categories(name for member in members for name in member.expert.categories)
    name = f"{config.method} of {len(members)} expert{'s' * (len(members) > 1)}"
    return SafetyExpert(layers, categories, members[0].expert.family, metadata, name)


def _method(name: str) -> MergeMethod:
    if name not in MERGE_METHODS:
        raise ValueError(f"method must be one of {', '.join(MERGE_METHODS)}, got {name!r}.")
    return MERGE_METHODS[name]


def _merger(
    method: MergeMethod, members: Sequence[Member], config: MergeConfig, statistics: Statistics | None
) -> Callable[[Sequence[LowRank], str], MergedLayer]:
    """Return the method as a function of a layer's parts and name, all that it declares bound."""
    if len(members) == 1:
        return lambda parts, module: MergedLayer(parts[0])
    options = {name: getattr(config, name) for name in method.options}
    # dealt out by size, so that neither the order of the experts nor their files' key style matters
    order = size_order(members) if method.is_random else []

    def merge(parts: Sequence[LowRank], module: str) -> MergedLayer:
        extra: dict[str, object] = {}
        if method.needs_statistics:
            extra["statistics"] = statistics.at(members, module, (parts[0].d_out, parts[0].d_in))
        if method.is_random:
            extra["generators"] = [named_generator(f"merge/{config.seed}/{module}/{i}") for i in order]
        return method.merge(parts, **options, **extra)

    return merge
