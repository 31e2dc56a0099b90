"""What a calibration found, and whether it may be used for a merge."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config import MergeConfig
from ..system.tensors import open_tensors, write_tensors
from .collector import Collector
from .input_record import RecordedActivity
from .members import Member, layer_parts
from .methods import MERGE_METHODS, plain_methods


@dataclass(frozen=True, eq=False)  # holds tensors
class Statistics:
    """What calibration found, and for which experts; small enough to keep.

    Attributes:
        layers: by diffusers path, on the CPU, of experts at strength 1: `LayerActivity`, `RecordedActivity`
            or `LayerResponses`, as the kind and the options of the merge say.
        members: content hash of each expert, in their order.
        normalize: whether activities were divided by the size of each expert.
        calibration_hash: SHA-256 of prompts, pictures, timesteps, noise seed and schedule.
        num_inputs: prompts times timesteps that were run.
        kind: of the collector.
        agreement: see `Collector.agreement`.
        latent_shape: (c, h, w) of the latents.
        base_hash: of the base model's weights, empty if it was not told.
        from_pictures: whether the latents were of given pictures; else the base model drew them.
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

    def at(self, members: Sequence[Member], module: str, shape: tuple[int, int]) -> Any:
        """Return what was found in a layer of this (d_out, d_in), for the members' strengths."""
        layer = self.layers[module]
        if self.kind != "activity" or self.normalize:
            return layer
        strengths = [member.strength for member in members]
        if not isinstance(layer, RecordedActivity):
            return layer.scaled(strengths)
        trained = [member._replace(strength=1.0) for member in members]
        return layer.at(strengths, layer_parts(trained, module, shape))


def check_statistics(statistics: Statistics | None, members: Sequence[Member], config: MergeConfig) -> None:
    """Refuse statistics that are missing or do not hold for a merge.

    Raises:
        ValueError: if there are none, or they are of other experts, of another kind, or do not tell who wins
            at these strengths.
    """
    if statistics is None:
        raise ValueError(
            f"{config.method} of {len(members)} experts needs to see how they act on the base model: connect "
            "model, clip and calibration (on the command line: --base and --calibration), or choose one of "
            f"{plain_methods()}."
        )
    if statistics.kind != MERGE_METHODS[config.method].needs_statistics.kind:
        raise ValueError(f"the statistics are not what {config.method} needs. Collect them again.")
    same = statistics.members == tuple(member.expert.content_hash for member in members)
    if statistics.kind == "activity":
        same &= statistics.normalize == config.normalize
        same &= not _needs_record(members, config) or _has_record(statistics, config)
    if not same:
        raise ValueError(
            "the statistics are of other experts, or of another normalize, statistic or level. Collect them "
            "again."
        )


def _needs_record(members: Sequence[Member], config: MergeConfig) -> bool:
    unequal = len({member.strength for member in members}) > 1
    return unequal and config.statistic == "win_count" and not config.normalize


def _has_record(statistics: Statistics, config: MergeConfig) -> bool:
    layers = statistics.layers.values()
    needs_ranks = config.level != "output neuron"
    return all(isinstance(layer, RecordedActivity) for layer in layers) and (
        not needs_ranks or all(layer.record.has_ranks for layer in layers)
    )


_FORMAT = "4"  # raise it when the meaning of an entry changes: old entries are then never read


class StatisticsStore:
    """A folder with one file per calibration.

    For seven rank-4 experts of SDXL's attention layers: 50 MB, and 140 MB more for `co_merge` by wins.

    Args:
        folder: made when first needed.
        base_hash: names the weights of the UNet, see `families.weights_hash`.
    """

    def __init__(self, folder: Path, base_hash: str) -> None:
        self._folder = folder
        self._base_hash = base_hash

    def path(self, config: MergeConfig, collector: type[Collector], *told: object) -> Path:
        """Return the file of a calibration: equal for equal circumstances, and only for those.

        Args:
            config: of the merge; the options that the collector reads count.
            collector: what collects.
            told: all else that decides the result.
        """
        options = {name: getattr(config, name) for name in collector.options}
        parts = json.dumps(
            [_FORMAT, torch.__version__, self._base_hash, collector.kind, options, *map(str, told)],
            sort_keys=True,
        )
        name = hashlib.sha256(parts.encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.safetensors"

    def read(self, path: Path, collector: type[Collector]) -> Statistics | None:
        """Return what is kept in a file; None where it is missing or damaged."""
        try:
            with open_tensors(path) as tensors:
                facts = json.loads(tensors.metadata["statistics"])
                groups: dict[str, dict[str, dict[int, object]]] = {}
                for key in tensors:
                    module, group, place = key.split("/")
                    groups.setdefault(module, {}).setdefault(group, {})[int(place)] = tensors[key]
        except (FileNotFoundError, ValueError, KeyError):  # missing, torn or foreign: made anew
            return None
        layers = {
            module: collector.layer_of([[own[i] for i in sorted(own)] for _, own in sorted(each.items())])
            for module, each in groups.items()
        }
        facts |= {name: tuple(facts[name]) for name in ("members", "latent_shape")}
        return Statistics(layers=layers, **facts)

    def write(self, path: Path, statistics: Statistics) -> None:
        """Keep statistics in a file, atomically."""
        tensors = {
            f"{module}/{group}/{place}": tensor.float()  # counts are exact below 2^24
            for module, layer in statistics.layers.items()
            for group, tensors in enumerate(layer)
            for place, tensor in enumerate(tensors)
        }
        facts = {name: value for name, value in vars(statistics).items() if name != "layers"}
        path.unlink(missing_ok=True)  # a damaged entry stands in the way of a good one
        try:
            write_tensors(path, tensors, {"statistics": json.dumps(facts)})
        except FileExistsError:
            pass  # another run made the same entry meanwhile
