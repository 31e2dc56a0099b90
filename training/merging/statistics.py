"""What a calibration found, and whether it may be used for a merge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import MergeConfig
from .members import Member
from .methods import MERGE_METHODS, plain_methods


@dataclass(frozen=True, eq=False)  # holds tensors
class Statistics:
    """What calibration found, and for which experts; small enough to keep.

    Attributes:
        layers: by diffusers path, on the CPU; `LayerActivity` or `LayerResponses`, as the kind says.
        members: content hash of each expert, in their order.
        strengths: of the same experts, at which they competed for wins.
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
    strengths: tuple[float, ...]
    normalize: bool
    calibration_hash: str
    num_inputs: int
    kind: str = "activity"
    agreement: float | None = None
    latent_shape: tuple[int, ...] = ()
    base_hash: str = ""
    from_pictures: bool = False

    def at(self, strengths: Sequence[float], module: str) -> Any:
        """Return what was found in a layer, for experts at these strengths."""
        layer = self.layers[module]
        return layer if self.kind != "activity" or self.normalize else layer.scaled(strengths)


def check_statistics(statistics: Statistics | None, members: Sequence[Member], config: MergeConfig) -> None:
    """Refuse statistics that are missing or do not hold for a merge.

    Raises:
        ValueError: if there are none, or they are of other experts, of another kind, or of strengths that
            would change who won.
    """
    if statistics is None:
        raise ValueError(
            f"{config.method} of {len(members)} experts needs to see how they act on the base model: connect "
            "model, clip and calibration (on the command line: --base and --calibration), or choose one of "
            f"{plain_methods()}."
        )
    if statistics.kind != MERGE_METHODS[config.method].needs_statistics.kind:
        raise ValueError(f"the statistics are not what {config.method} needs. Collect them again.")
    strengths = tuple(member.strength for member in members)
    same = statistics.members == tuple(member.expert.content_hash for member in members)
    if statistics.kind == "activity":
        same &= statistics.normalize == config.normalize
        same &= statistics.strengths == strengths or not strengths_matter(config)
    if not same:
        raise ValueError(
            "the statistics are of other experts, strengths or another normalize. Collect them again."
        )


def strengths_matter(config: MergeConfig) -> bool:
    """Return whether statistics hold for the strengths alone at which they were collected.

    Only who won an input cannot be known at other strengths; normalised experts compete at equal strength.
    """
    needed = MERGE_METHODS[config.method].needs_statistics
    return needed.kind == "activity" and config.statistic == "win_count" and not config.normalize
