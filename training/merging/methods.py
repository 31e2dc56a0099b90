"""The merge methods by name. The order is that of the widget: append, never reorder, never rename."""

from collections.abc import Callable
from dataclasses import dataclass

from .activity_collector import ActivityCollector
from .co_merge import co_merge
from .collector import Collector
from .entrywise import dare_linear, dare_ties, magnitude_prune, ties
from .exact import average, concat, svd
from .layer import MergedLayer
from .regmean import ResponseCollector, regmean


@dataclass(frozen=True)
class MergeMethod:
    """A way to merge the experts of one layer.

    Attributes:
        merge: the function described in the docstring of the package.
        reference: where the method comes from.
        options: fields of `MergeConfig` that `merge` reads.
        collector: collects the calibration statistics that `merge` needs; None if it needs none.
        is_random: whether `merge` draws; the seed of the config makes it repeatable.
        is_distilled: whether `merge` only starts what `distill` then trains.
    """

    merge: Callable[..., MergedLayer]
    reference: str
    options: tuple[str, ...] = ()
    collector: type[Collector] | None = None
    is_random: bool = False
    is_distilled: bool = False


MERGE_METHODS: dict[str, MergeMethod] = {
    "co_merge": MergeMethod(
        co_merge,
        "AlignGuard, arXiv:2412.10493, from its public description",
        options=("statistic", "level"),
        collector=ActivityCollector,
    ),
    "average": MergeMethod(average, "mean of the updates; model soups, arXiv:2203.05482"),
    "concat": MergeMethod(concat, "sum of the updates; `cat` in PEFT"),
    "svd": MergeMethod(svd, "sum at the rank of one expert; `svd` in PEFT", options=("output_rank",)),
    "magnitude_prune": MergeMethod(
        magnitude_prune, "sum of the large entries; `magnitude_prune_svd` in PEFT", options=("density",)
    ),
    "ties": MergeMethod(ties, "TIES, arXiv:2306.01708; `ties_svd` in PEFT", options=("density",)),
    "dare_linear": MergeMethod(
        dare_linear, "DARE, arXiv:2311.03099; `dare_linear_svd` in PEFT", options=("density",), is_random=True
    ),
    "dare_ties": MergeMethod(
        dare_ties,
        "DARE with TIES, arXiv:2311.03099; `dare_ties_svd` in PEFT",
        options=("density",),
        is_random=True,
    ),
    "regmean": MergeMethod(
        regmean, "RegMean, arXiv:2212.09849, with neutral inputs", collector=ResponseCollector
    ),
    "distill": MergeMethod(
        regmean,
        "regmean, then distillation, arXiv:1503.02531, from the experts; our own",
        collector=ResponseCollector,
        is_distilled=True,
    ),
}


def needs_statistics(name: str, num_members: int) -> bool:
    """Return whether a merge needs calibration statistics; no other code decides it.

    Args:
        name: of the method; an unknown one needs none.
        num_members: experts that take part; a single expert has no rival.
    """
    return name in MERGE_METHODS and MERGE_METHODS[name].collector is not None and num_members > 1


def plain_methods() -> str:
    """Return the names of the methods that need no calibration, joined by commas."""
    return ", ".join(name for name, method in MERGE_METHODS.items() if not method.collector)


def calibrated_methods() -> str:
    """Return the names of the methods that need calibration, joined by commas."""
    return ", ".join(name for name, method in MERGE_METHODS.items() if method.collector)
