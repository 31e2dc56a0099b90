"""The statistics of a calibration: checked before they are used for a merge, and cached on disk."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config import MergeConfig
from ..system.tensors import check_finite, open_tensors, write_tensors
from .collector import NOT_FINITE, Collector
from .input_record import RecordedActivity
from .members import Members
from .methods import MERGE_METHODS

_FORMAT = "6"  # raise it when the meaning of an entry changes: old entries are then never read
_NOT_STORED = ("layers", "neutral")  # as facts


@dataclass(frozen=True, eq=False)  # holds tensors
class Statistics:
    """The result of a calibration, and the experts it is valid for.

    Values that are not finite raise ValueError, naming the layer.

    Attributes:
        layers: by diffusers path, on the CPU, of experts at strength 1: `LayerActivity`, `RecordedActivity`
            or `LayerResponses`, depending on the kind and on the options of the merge.
        members: content hash of each expert, in their order.
        normalize: whether activities were divided by the size of each expert.
        calibration_hash: SHA-256 of prompts, pictures, timesteps, noise seed and schedule.
        num_inputs: number of inputs that were run; prompts times timesteps, unless the pass stopped early.
        kind: of the collector.
        agreement: see `Collector.agreement`.
        latent_shape: (c, h, w) of the latents.
        base_hash: of the base model's weights; empty if unknown.
        from_pictures: whether the latents were those of pictures; otherwise the base model drew them.
        neutral: what the neutral prompts were, see `CalibrationPrompts`; the store does not keep it, because
            it does not follow from the content of the prompts.
    """

    layers: Mapping[str, Any]
    members: tuple[str, ...]
    normalize: bool
    calibration_hash: str
    num_inputs: int
    kind: str = "activity"
    agreement: float | None = None
    latent_shape: tuple[int, ...] = ()
    base_hash: str = ""
    from_pictures: bool = False
    neutral: str = ""

    def __post_init__(self) -> None:
        for module, layer in self.layers.items():
            for tensor in (tensor for group in layer for tensor in group):
                check_finite(tensor, f"the calibration statistics of {module}", NOT_FINITE)

    def at(self, members: Members, module: str) -> Any:
        """Return the statistics of a layer at the strengths of the members."""
        layer = self.layers[module]
        if self.kind != "activity" or self.normalize:
            return layer
        if not isinstance(layer, RecordedActivity):
            return layer.scaled(members.strengths)
        return layer.at(members.strengths, members.at_strength_one().parts(module))


def check_statistics(statistics: Statistics, members: Members, config: MergeConfig) -> None:
    """Refuse statistics that are not valid for a merge.

    Raises:
        ValueError: if they are of other experts, of another kind or of other options, or cannot tell which
            expert wins at these strengths.
    """
    if statistics.kind != MERGE_METHODS[config.method].collector.kind:
        raise ValueError(f"the statistics are not what {config.method} needs. Collect them again.")
    is_valid = statistics.members == members.content_hashes
    if statistics.kind == "activity":
        is_valid &= statistics.normalize == config.normalize
        is_valid &= not _needs_record(members, config) or _has_record(statistics, config)
    if not is_valid:
        raise ValueError(
            "the statistics are of other experts, or of another normalize, statistic or level. Collect them "
            "again."
        )


def _needs_record(members: Members, config: MergeConfig) -> bool:
    is_unequal = len(set(members.strengths)) > 1
    return is_unequal and config.statistic == "win_count" and not config.normalize


def _has_record(statistics: Statistics, config: MergeConfig) -> bool:
    layers = statistics.layers.values()
    needs_ranks = config.level != "output neuron"
    return all(isinstance(layer, RecordedActivity) for layer in layers) and (
        not needs_ranks or all(layer.record.has_ranks for layer in layers)
    )


class StatisticsStore:
    """A folder with one file per calibration.

    For seven rank-4 experts of SDXL's attention layers a file takes 50 MB, and 140 MB more for `co_merge` by
    wins.

    Args:
        folder: created on the first write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, collector: type[Collector], config: MergeConfig, base_hash: str, *facts: object) -> Path:
        """Return the file of a calibration: the same for the same calibration, and only for that.

        Args:
            collector: type of the collector; its options of the config are part of the name.
            config: of the merge.
            base_hash: names the weights of the base model.
            facts: everything else that decides the result.
        """
        options = {name: getattr(config, name) for name in collector.options}
        key = json.dumps(
            [_FORMAT, torch.__version__, base_hash, collector.kind, options, *map(str, facts)],
            sort_keys=True,
        )
        name = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.safetensors"

    def read(self, path: Path, collector: type[Collector]) -> Statistics | None:
        """Return the statistics in a file, without `neutral`; None if it is missing or damaged."""
        layers: dict[str, dict[str, dict[int, torch.Tensor]]] = {}
        try:
            with open_tensors(path) as tensors:
                facts = json.loads(tensors.metadata["statistics"])
                for key in tensors:
                    module, group, place = key.split("/")
                    layers.setdefault(module, {}).setdefault(group, {})[int(place)] = tensors[key]
            facts |= {name: tuple(facts[name]) for name in ("members", "latent_shape")}
            return Statistics(
                layers={
                    module: collector.layer_of(
                        [[group[place] for place in sorted(group)] for _, group in sorted(groups.items())]
                    )
                    for module, groups in layers.items()
                },
                **facts,
            )
        except (FileNotFoundError, ValueError, KeyError):  # missing, torn, foreign or not finite
            return None

    def write(self, path: Path, statistics: Statistics) -> None:
        """Write statistics to a file, atomically."""
        tensors = {
            f"{module}/{group}/{place}": tensor.float()  # counts are exact below 2^24
            for module, layer in statistics.layers.items()
            for group, tensors in enumerate(layer)
            for place, tensor in enumerate(tensors)
        }
        facts = {name: value for name, value in vars(statistics).items() if name not in _NOT_STORED}
        path.unlink(missing_ok=True)  # a damaged entry would block the new one
        try:
            write_tensors(path, tensors, {"statistics": json.dumps(facts)})
        except FileExistsError:
            pass  # another run has written the same entry meanwhile
