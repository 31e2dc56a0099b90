"""The part of the report that says where an extracted expert comes from and what it could not take along."""

import json
from collections import Counter
from collections.abc import Mapping

_SHARES = {  # share of the squared change -> where it went
    "kept": "in this expert",
    "rounding": "rounding of the stored weights, not a change",
    "left_out": "in norms and biases, which a LoRA cannot hold",
    "cut": "beyond the rank and energy asked for",
}
_NAMED = 3


def extraction_lines(metadata: Mapping[str, str]) -> list[str]:
    """Say which models a file is the difference of; nothing for other files."""
    try:
        models = json.loads(metadata["alignguard.extracted_from"])
        shares = json.loads(metadata["alignguard.change"])
        lines = [f"extracted from: {models['tuned']['name']}, tuned from {models['base']['name']}"]
        lines += ["squared change of the weights:"]
        lines += [f"  {100 * float(shares[name]):>8.3f} %  {text}" for name, text in _SHARES.items()]
        left_out = json.loads(metadata["alignguard.not_representable"])
        return lines + _left_out({name: float(norm) for name, norm in left_out.items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _left_out(norms: Mapping[str, float]) -> list[str]:
    """Count the tensors left out by kind, and name those that changed most."""
    if not norms:
        return []
    kinds = Counter(_kind(name) for name in norms)
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    largest = sorted(norms, key=lambda name: (-norms[name], name))[:_NAMED]
    named = ", ".join(f"{name} ({norms[name]:.3g})" for name in largest)
    return [f"changed, but not in this expert: {counted}; most: {named}"]


def _kind(name: str) -> str:
    module, _, part = name.rpartition(".")
    kind = {"weight": "weights", "bias": "biases"}.get(part, "other tensors")
    return f"norm {kind}" if "norm" in module.rpartition(".")[2] else kind
