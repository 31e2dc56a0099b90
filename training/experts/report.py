"""The text about an expert that the Info node and the `info` command show to people."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence

from ..rules.categories import FAMILY_NAMES
from .low_rank import LowRank
from .merge_facts import block_of, depth, merge_facts, merge_lines

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


_STATED = {  # metadata key -> label
    "alignguard.objective": "objective",
    "modelspec.resolution": "resolution",
    "alignguard.steps": "steps",
    "alignguard.learning_rate": "learning rate",
    "alignguard.beta": "beta",
    "alignguard.beta_convention": "beta convention",
    "alignguard.seed": "seed",
    "alignguard.method": "merge method",
    "alignguard.member_bases": "members trained on",
    "alignguard.kept_energy": "energy kept at this rank",
    "alignguard.density": "share of weights kept",
    "alignguard.level": "merged by",
    "alignguard.calibration_inputs": "calibration inputs",
    "alignguard.calibration_source": "calibration latents",
    "alignguard.calibration_agreement": "agreement of two halves of the calibration",
}


def report_text(
    name: str,
    categories: Sequence[str],
    family: str,
    layers: Mapping[str, LowRank],
    metadata: Mapping[str, str],
) -> str:
    """Describe an expert: what it is, how it was made if the file says so, and where it acts.

    Args:
        name: of the file or the run.
        categories: normalised names, may be empty.
        family: base model line.
        layers: updates by diffusers path.
        metadata: the file's strings; `alignguard.*` and the resolution are shown.

    Returns:
        Several lines of text without a final line break.
    """
    lines = [
        name,
        f"categories: {', '.join(categories) or 'not stated'}",
        f"base model: {FAMILY_NAMES.get(family, family)}",
        f"layers: {len(layers)}, rank {_ranks(layers)}, {_size(layers)}",
    ]
    lines += [f"{label}: {metadata[key]}" for key, label in _STATED.items() if metadata.get(key)]
    lines += _held_out_line(metadata.get("alignguard.validation", ""))
    lines += extraction_lines(metadata)
    merged = merge_facts(metadata, layers)
    if merged:
        return "\n".join([*lines, *merge_lines(merged)])
    if metadata.get("alignguard.members"):  # not the list that our merge writes
        lines += ["members:", f"  {metadata['alignguard.members']}"]
    return "\n".join([*lines, *_norm_table(layers)])


def _held_out_line(validation: str) -> list[str]:
    """Say what a file states of pairs that were not trained on; a file of another kind states nothing."""
    try:
        figures = json.loads(validation)
        said = ", ".join(
            f"{name} {figures[name]:.4g}" for name in ("margin", "implicit_accuracy", "distance")
        )
    except (ValueError, KeyError, TypeError):  # not measured, or not written by our training
        return [f"on held-out pairs: {validation}"] if validation == "not measured" else []
    return [f"on held-out pairs: {said}"]


def _ranks(layers: Mapping[str, LowRank]) -> str:
    ranks = sorted({layer.rank for layer in layers.values()}) or [0]
    return str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"


def _size(layers: Mapping[str, LowRank]) -> str:
    num_parameters = sum(layer.up.numel() + layer.down.numel() for layer in layers.values())
    return f"{num_parameters:,} parameters ({4 * num_parameters / 1e6:.3g} MB in fp32)"


def _norm_table(layers: Mapping[str, LowRank]) -> list[str]:
    """List the size of the update per block: Frobenius norm over the block's layers."""
    blocks: dict[str, list[float]] = {}
    for module, layer in layers.items():
        blocks.setdefault(block_of(module), []).append(layer.norm())
    rows = [
        f"  {block:<15}{len(norms):>7}{math.hypot(*norms):>12.4g}"
        for block, norms in sorted(blocks.items(), key=lambda row: depth(row[0]))
    ]
    return [f"  {'block':<15}{'layers':>7}{'norm':>12}", *rows] if rows else []
