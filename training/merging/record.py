"""What a merged expert's metadata says about how it was made; `expert_report` shows it to people."""

import json
import math
from collections.abc import Mapping, Sequence

from ..config import MergeConfig
from ..low_rank import LowRank
from .activations import Statistics
from .members import Member, base_hashes


def provenance(members: Sequence[Member], config: MergeConfig) -> dict[str, str]:
    """State how the file was made and from which experts; the base model's hash if all share one.

    Members of different base models are counted under `alignguard.member_bases`.
    """
    listed = [
        {
            "name": expert.name,
            "categories": list(expert.categories),
            "strength": strength,
            "hash": expert.content_hash,
        }
        for expert, strength in members
    ]
    bases = base_hashes(members)
    all_stated = all(expert.metadata.get("alignguard.base_hash") for expert, _ in members)
    return {
        "alignguard.method": config.method,
        "alignguard.members": json.dumps(listed, ensure_ascii=False),
        "alignguard.output_rank": str(config.output_rank),
        **({"alignguard.base_hash": next(iter(bases))} if len(bases) == 1 and all_stated else {}),
        **({"alignguard.member_bases": f"{len(bases)} different base models"} if len(bases) > 1 else {}),
    }


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
    config: MergeConfig, statistics: Statistics | None, winners: Mapping[str, Sequence[int]]
) -> dict[str, str]:
    """State how many neurons each expert won per layer, members' order; nothing if none was to be won."""
    if not winners:
        return {}
    return {
        "alignguard.statistic": config.statistic,
        "alignguard.normalize": str(config.normalize).lower(),
        "alignguard.calibration_hash": statistics.calibration_hash,
        "alignguard.calibration_inputs": str(statistics.num_inputs),
        "alignguard.winners": json.dumps(winners),
    }
