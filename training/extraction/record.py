"""What an extracted expert's metadata says about how it was made; `expert_report` shows it to people."""

import json
import math
from dataclasses import dataclass, field

from ..config import ExtractConfig
from ..models.hashes import WeightsDigest
from .factor import Factored


@dataclass(eq=False)
class Outcome:
    """What comparing two models found.

    Attributes:
        base: of all weights before.
        tuned: of all weights after.
        layers: per changed layer, without its update.
        left_out: squared change of each tensor that a LoRA cannot hold.
    """

    base: WeightsDigest
    tuned: WeightsDigest
    layers: dict[str, Factored] = field(default_factory=dict)
    left_out: dict[str, float] = field(default_factory=dict)


def provenance(outcome: Outcome, config: ExtractConfig, *, base: str, tuned: str) -> dict[str, str]:
    """State both models, the options, and where the squared change went: shares that add up to 1.

    Args:
        outcome: of all tensors.
        config: options of the extraction.
        base: name of the base model.
        tuned: name of the tuned model.
    """
    found = outcome.layers.values()
    left_out = math.fsum(outcome.left_out.values())
    total = math.fsum(layer.total for layer in found) + left_out
    kept = math.fsum(layer.kept for layer in found)
    rounding = math.fsum(layer.rounding for layer in found)
    shares = {"kept": kept, "rounding": rounding, "left_out": left_out}
    shares["cut"] = max(0.0, total - kept - rounding - left_out)
    models = [
        {"name": base, "hash": outcome.base.hexdigest()},
        {"name": tuned, "hash": outcome.tuned.hexdigest()},
    ]
    return {
        "alignguard.extracted_from": json.dumps(dict(zip(("base", "tuned"), models, strict=True))),
        "alignguard.base_hash": models[0]["hash"],
        "alignguard.extract_rank": str(config.rank),
        "alignguard.extract_energy": f"{config.energy:g}",
        "alignguard.change": json.dumps({name: round(value / total, 6) for name, value in shares.items()}),
        "alignguard.kept_energy_per_layer": json.dumps(
            {module: round(layer.kept / layer.total, 4) for module, layer in outcome.layers.items()}
        ),
        "alignguard.not_representable": json.dumps(
            {name: float(f"{math.sqrt(squared):.4g}") for name, squared in outcome.left_out.items()}
        ),
    }
