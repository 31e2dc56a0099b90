"""Merging experts into one. To add a method: write its file, then add its line to `MERGE_METHODS`.

A method merges one layer: f(parts: Sequence[LowRank]) -> MergedLayer, the experts' updates of that
layer in, strengths folded and missing ones zero. One that needs statistics is called as
f(parts, statistics: LayerStatistics, statistic: str). A single expert never reaches it.

The order is the order of the widget: append, never reorder, never rename (saved graphs store the name).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..config import MergeConfig
from ..expert import SafetyExpert
from ..low_rank import LowRank
from ..taxonomy import normalize_categories
from .activations import Statistics, collect_statistics
from .average import average
from .calibration import calibration_prompts
from .co_merge import LayerStatistics, co_merge
from .concat import concat
from .layer import MergedLayer, drop_zero_components, rows_won
from .members import Member, layer_parts, layer_shapes, members_of, warn_of_bases
from .record import calibration, energy, provenance

__all__ = [
    "MERGE_METHODS",
    "LayerStatistics",
    "MergeMethod",
    "Statistics",
    "calibration_prompts",
    "collect_statistics",
    "merge_experts",
]


@dataclass(frozen=True)
class MergeMethod:
    """A way to merge the experts of one layer.

    Attributes:
        merge: see the module docstring.
        reference: where it comes from.
        needs_statistics: whether the experts must be calibrated first.
    """

    merge: Callable[..., MergedLayer]
    reference: str
    needs_statistics: bool


MERGE_METHODS: dict[str, MergeMethod] = {
    "co_merge": MergeMethod(co_merge, "AlignGuard, arXiv:2412.10493, from its public description", True),
    "average": MergeMethod(average, "mean of the updates; model soups, arXiv:2203.05482", False),
    "concat": MergeMethod(concat, "sum of the updates; `cat` in PEFT", False),
}


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
        config: method, output_rank, statistic and normalize are used.
        strengths: one per expert, in [0, 2]; None is 1 for all. An expert at 0 takes no part.
        statistics: from `collect_statistics` with the same experts and strengths; only for methods that
            need them, and only for more than one expert.
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
        _check_statistics(statistics, members, config)
    layers: dict[str, LowRank] = {}
    winners: dict[str, list[int]] = {}
    kept: dict[str, float] = {}
    for module, shape in shapes.items():
        merged = _merge_layer(method, layer_parts(members, module, shape), statistics, module, config)
        layers[module], kept[module] = _cut(drop_zero_components(merged.update), config.output_rank)
        if merged.winners is not None:
            winners[module] = rows_won(merged.winners, len(members))
        if on_progress:
            on_progress(len(layers), len(shapes))
    metadata = provenance(members, config) | energy(layers, kept) | calibration(config, statistics, winners)
    categories = normalize_categories(name for member in members for name in member.expert.categories)
    name = f"{config.method} of {len(members)} expert{'s' * (len(members) > 1)}"
    return SafetyExpert(layers, categories, members[0].expert.family, metadata, name)


def _method(name: str) -> MergeMethod:
    if name not in MERGE_METHODS:
        raise ValueError(f"method must be one of {', '.join(MERGE_METHODS)}, got {name!r}.")
    return MERGE_METHODS[name]


def _check_statistics(statistics: Statistics | None, members: Sequence[Member], config: MergeConfig) -> None:
    if statistics is None:
        others = " or ".join(name for name, method in MERGE_METHODS.items() if not method.needs_statistics)
        raise ValueError(
            f"{config.method} of {len(members)} experts needs to see which of them is most active: connect "
            "model, clip and calibration (on the command line: --base and --calibration), or choose "
            f"{others}."
        )
    made_for = (statistics.members, statistics.strengths, statistics.normalize)
    hashes = tuple(member.expert.content_hash for member in members)
    if made_for != (hashes, tuple(member.strength for member in members), config.normalize):
        raise ValueError(
            "the statistics are of other experts, strengths or another normalize. Collect them again."
        )


def _merge_layer(
    method: MergeMethod,
    parts: Sequence[LowRank],
    statistics: Statistics | None,
    module: str,
    config: MergeConfig,
) -> MergedLayer:
    if len(parts) == 1:
        return MergedLayer(parts[0])
    if method.needs_statistics:
        return method.merge(parts, statistics.layers[module], config.statistic)
    return method.merge(parts)


def _cut(update: LowRank, output_rank: int) -> tuple[LowRank, float]:
    return update.truncated(output_rank) if output_rank else (update, 1.0)
