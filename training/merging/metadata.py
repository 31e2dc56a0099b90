"""What a merged expert's metadata says about how it was made; `expert_report` shows it to people."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from ..config import MergeConfig
from ..experts.low_rank import LowRank
from .members import Member, base_hashes
from .methods import MERGE_METHODS
from .statistics import Statistics

_CALIBRATION = ("hash", "inputs", "latents", "source", "base_hash", "agreement")
_REPEATING = (
    *(field.name for field in fields(MergeConfig)),
    *(f"calibration_{name}" for name in _CALIBRATION),
)


def provenance(members: Sequence[Member], config: MergeConfig) -> dict[str, str]:
    """State how the file was made and from which experts; the base model's hash if all share one.

    Together with the members' files, and the calibration prompts and pictures if there are any, it repeats
    the merge. Of members that are merges themselves the same is stated in turn, so their files need not be
    kept.

    Members of different base models are counted under `alignguard.member_bases`.
    """
    listed = [
        {
            "name": expert.name,
            "categories": list(expert.categories),
            "strength": strength,
            "hash": expert.content_hash,
            **_own_members(expert.metadata),
        }
        for expert, strength in members
    ]
    method = MERGE_METHODS[config.method]
    bases = base_hashes(members)
    all_stated = all(expert.metadata.get("alignguard.base_hash") for expert, _ in members)
    return {
        "alignguard.method": config.method,
        "alignguard.members": json.dumps(listed, ensure_ascii=False),
        "alignguard.output_rank": str(config.output_rank),
        **_stated(config, method.options),
        **(_stated(config, ["seed"]) if method.is_random else {}),
        **({"alignguard.base_hash": next(iter(bases))} if len(bases) == 1 and all_stated else {}),
        **({"alignguard.member_bases": f"{len(bases)} different base models"} if len(bases) > 1 else {}),
    }


def sizes(norms: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """State how large each member's update was per layer before the merge, strengths folded."""
    rounded = {module: [float(f"{norm:.4g}") for norm in own] for module, own in norms.items()}
    return {"alignguard.member_norms": json.dumps(rounded)}


def energy(layers: Mapping[str, LowRank], kept: Mapping[str, float]) -> dict[str, str]:
    """State the share of the squared norm that survived the cut to output_rank; nothing if all did."""
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
    """State how the experts were compared, and how many neurons each won per layer, in the members' order."""
    agreement, collector = statistics.agreement, MERGE_METHODS[config.method].needs_statistics
    return {
        **_stated(config, [*collector.options, "timesteps", "prompts_per_category", "seed"]),
        "alignguard.calibration_hash": statistics.calibration_hash,
        "alignguard.calibration_inputs": str(statistics.num_inputs),
        "alignguard.calibration_latents": "x".join(map(str, statistics.latent_shape)),
        "alignguard.calibration_base_hash": statistics.base_hash,
        "alignguard.calibration_source": "pictures"
        if statistics.from_pictures
        else "drawn by the base model",
        **({} if agreement is None else {"alignguard.calibration_agreement": f"{agreement:.4f}"}),
        **({"alignguard.winners": json.dumps(winners)} if winners else {}),
    }


def _stated(config: MergeConfig, options: Iterable[str]) -> dict[str, str]:
    values = {name: getattr(config, name) for name in options}
    return {
        f"alignguard.{name}": str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
    }


def _own_members(metadata: Mapping[str, str]) -> dict[str, object]:
    """Return how a member was merged itself, if it was: the account goes as deep as the merges did."""
    try:
        own = json.loads(metadata["alignguard.members"])
    except (KeyError, ValueError):
        return {}
    stated = {name: metadata.get(f"alignguard.{name}") for name in _REPEATING}
    settings = {name: value for name, value in stated.items() if value is not None}
    return {"method": settings.pop("method", ""), "members": own, "settings": settings}
