"""Metadata of a merged expert: how it was made, and from what. `experts.report` shows it to people."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from ..config import MergeConfig
from ..experts.low_rank import LowRank
from .members import Members
from .methods import MERGE_METHODS
from .statistics import Statistics

_CALIBRATION = ("hash", "inputs", "latents", "source", "base_hash", "agreement", "neutral")
# What a merge states of a member that is a merge itself, in the order in which files list it; a new option
# comes after these.
_FIRST = ("method", "output_rank", "statistic", "timesteps", "prompts_per_category", "normalize", "seed")
_FIRST += ("density", "level", "stop_agreement", "neutral_weight", "ridge")
_OPTIONS = tuple(dict.fromkeys((*_FIRST, *(field.name for field in fields(MergeConfig)))))
_REPEATING = (*_OPTIONS, *(f"calibration_{name}" for name in _CALIBRATION))


def provenance(members: Members, config: MergeConfig) -> dict[str, str]:
    """State the method, its options and the members; also the base model, if all members name the same one.

    Together with the members' files, and the calibration prompts and pictures if there are any, this repeats
    the merge. A member that is a merge itself is stated with its members in turn, so its file need not be
    kept. Members of different base models are counted under `alignguard.member_bases`.
    """
    entries = [
        {
            "name": expert.name,
            "categories": list(expert.categories),
            "strength": strength,
            "hash": expert.content_hash,
            **_account_of_merge(expert.metadata),
        }
        for expert, strength in members
    ]
    method = MERGE_METHODS[config.method]
    bases = members.base_hashes()
    all_stated = all(expert.metadata.get("alignguard.base_hash") for expert, _ in members)
    return {
        "alignguard.method": config.method,
        "alignguard.members": json.dumps(entries, ensure_ascii=False),
        "alignguard.output_rank": str(config.output_rank),
        **_stated(config, method.options),
        **(_stated(config, ["seed"]) if method.is_random else {}),
        **({"alignguard.base_hash": next(iter(bases))} if len(bases) == 1 and all_stated else {}),
        **({"alignguard.member_bases": f"{len(bases)} different base models"} if len(bases) > 1 else {}),
    }


def sizes(norms: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """State the norm of each member's update per layer before the merge, strengths folded in."""
    rounded = {module: [float(f"{norm:.4g}") for norm in by_member] for module, by_member in norms.items()}
    return {"alignguard.member_norms": json.dumps(rounded)}


def energy(layers: Mapping[str, LowRank], kept: Mapping[str, float]) -> dict[str, str]:
    """State the share of the squared norm that the merge kept; nothing if it kept all."""
    if all(share == 1 for share in kept.values()):
        return {}
    after = [layer.norm() ** 2 for layer in layers.values()]
    before = [value / max(share, 1e-12) for value, share in zip(after, kept.values(), strict=True)]
    return {
        "alignguard.kept_energy": f"{math.fsum(after) / math.fsum(before):.4f}",
        "alignguard.kept_energy_per_layer": json.dumps(
            {name: round(share, 4) for name, share in kept.items()}
        ),
    }


def calibration(
    config: MergeConfig, statistics: Statistics, winners: Mapping[str, Sequence[int]]
) -> dict[str, str]:
    """State the calibration, and how many neurons each member won per layer, in the members' order."""
    agreement, neutral = statistics.agreement, statistics.neutral
    collector = MERGE_METHODS[config.method].collector
    source = "pictures" if statistics.from_pictures else "drawn by the base model"
    return {
        **_stated(config, [*collector.options, "timesteps", "prompts_per_category", "seed"]),
        "alignguard.calibration_hash": statistics.calibration_hash,
        "alignguard.calibration_inputs": str(statistics.num_inputs),
        "alignguard.calibration_latents": "x".join(map(str, statistics.latent_shape)),
        "alignguard.calibration_base_hash": statistics.base_hash,
        "alignguard.calibration_source": source,
        **({} if agreement is None else {"alignguard.calibration_agreement": f"{agreement:.4f}"}),
        **({"alignguard.calibration_neutral": neutral} if neutral else {}),
        **({"alignguard.winners": json.dumps(winners)} if winners else {}),
    }


def distillation(config: MergeConfig, answered: float, moved: float) -> dict[str, str]:
    """State how a merge was trained further, and what came of it, see `Distilled`."""
    return {
        **_stated(config, ["distill_steps", "timesteps", "seed"]),
        "alignguard.distill_answered": f"{answered:.4f}",
        "alignguard.distill_moved": f"{moved:.4f}",
    }


def _stated(config: MergeConfig, options: Iterable[str]) -> dict[str, str]:
    values = {name: getattr(config, name) for name in options}
    return {
        f"alignguard.{name}": str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
    }


def _account_of_merge(metadata: Mapping[str, str]) -> dict[str, object]:
    """Return how a member was merged itself, to any depth; nothing if it was not."""
    try:
        members = json.loads(metadata["alignguard.members"])
    except (KeyError, ValueError):
        return {}
    stated = {name: metadata.get(f"alignguard.{name}") for name in _REPEATING}
    settings = {name: value for name, value in stated.items() if value is not None}
    return {"method": settings.pop("method", ""), "members": members, "settings": settings}
