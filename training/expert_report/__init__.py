"""The text about an expert that the Info node and the `info` command show to people."""

import json
import math
from collections.abc import Mapping, Sequence

from ..low_rank import LowRank
from ..rules.categories import FAMILY_NAMES
from .blocks import block_of, depth
from .extraction import extraction_lines
from .merge import merge_facts, merge_lines

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
