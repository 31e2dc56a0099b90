"""The text about an expert that the Info node and the `info` command show to people."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..rules.categories import FAMILY_NAMES
from .change_facts import extraction_facts, extraction_lines
from .lora_parts import LEFT_OUT
from .low_rank import LowRank
from .merge_facts import LayerFacts, MemberFacts, MergeFacts, block_of, depth, merge_facts, short_name

_LABELS = {  # metadata key -> label
    LEFT_OUT: "left out",
    "alignguard.objective": "objective",
    "modelspec.resolution": "resolution",
    "modelspec.prediction_type": "prediction type",
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
    "alignguard.calibration_neutral": "neutral inputs of the calibration",
    "alignguard.calibration_agreement": "agreement of two halves of the calibration",
    "alignguard.distill_answered": "share of the experts' answers that distillation reached",
    "alignguard.distill_moved": "moved under neutral prompts, as a share of the experts' answers",
}
_HASH_DIGITS = 12
_CELL = 9  # characters of a column


def report_text(
    name: str,
    categories: Sequence[str],
    family: str,
    layers: Mapping[str, LowRank],
    metadata: Mapping[str, str],
) -> str:
    """Describe an expert: its properties, how it was made if the file states it, and where it acts.

    Args:
        name: of the file or the run.
        categories: normalised names, may be empty.
        family: base model family.
        layers: updates by diffusers path.
        metadata: strings of the file; `alignguard.*` and the resolution are shown.

    Returns:
        Several lines of text without a final line break.
    """
    lines = [
        name,
        f"categories: {', '.join(categories) or 'not stated'}",
        f"base model: {FAMILY_NAMES.get(family, family)}",
        f"layers: {len(layers)}, rank {_ranks(layers)}, {_size(layers)}",
    ]
    lines += [f"{label}: {metadata[key]}" for key, label in _LABELS.items() if metadata.get(key)]
    lines += _held_out_line(metadata.get("alignguard.validation", ""))
    if extraction := extraction_facts(metadata, layers):
        lines += extraction_lines(extraction)
    facts = merge_facts(metadata, layers)
    if facts:
        return "\n".join([*lines, *merge_lines(facts)])
    if metadata.get("alignguard.members"):  # not the list that our merge writes
        lines += ["members:", f"  {metadata['alignguard.members']}"]
    return "\n".join([*lines, *_norm_table(layers)])


def merge_lines(facts: MergeFacts) -> list[str]:
    """Return lines with the members and, per block, the neurons won, the norms, and the energy kept."""
    lines = ["members:", *_member_lines(facts.members, "  ")]
    names = [f"{number} {member.name}" for number, member in enumerate(facts.members, start=1)]
    blocks: dict[str, list[LayerFacts]] = {}
    for layer in facts.layers:
        blocks.setdefault(block_of(layer.module), []).append(layer)

    def rows(names: Sequence[str], cell: Callable[[list[LayerFacts], int], str]) -> dict[str, list[str]]:
        return {name: [cell(layers, i) for layers in blocks.values()] for i, name in enumerate(names)}

    if facts.has_winners:
        won = rows(names, lambda layers, i: str(sum(layer.won[i] for layer in layers if layer.won)))
        lines += _table(f"{facts.neurons} won", blocks, won)
    norms: dict[str, list[str]] = {}
    if all(layer.before for layer in facts.layers):
        norms = rows(names, lambda layers, i: _norm(layer.before[i] for layer in layers))
    norms |= rows(["merged"], lambda layers, _: _norm(layer.after for layer in layers))
    lines += _table("norm of the update", blocks, norms)
    if any(layer.kept < 1 for layer in facts.layers):
        kept = rows(["merged"], lambda layers, _: f"{100 * _kept(layers):.1f}")
        lines += _table("energy kept at this rank, in %", blocks, kept)
    return lines


def _member_lines(members: Sequence[MemberFacts], indent: str) -> list[str]:
    lines = []
    for number, member in enumerate(members, start=1):
        digits = f", {member.hash[:_HASH_DIGITS]}" if member.hash else ""
        lines.append(f"{indent}{number} {member.name}, strength {member.strength:g}{digits}")
        lines += _member_lines(member.members, f"{indent}    ")
    return lines


def _norm(norms: Iterable[float]) -> str:
    return f"{math.hypot(*norms):.4g}"


def _kept(layers: Sequence[LayerFacts]) -> float:
    """Return the share of several layers together, weighted by their squared norms before the cut."""
    after = [layer.after**2 for layer in layers]
    before = [value / max(layer.kept, 1e-12) for value, layer in zip(after, layers, strict=True)]
    return math.fsum(after) / math.fsum(before) if math.fsum(before) else 1.0


def _table(title: str, blocks: Iterable[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the lines of a table: a title, a head with a column per block, and named rows of cells."""
    width = max(map(len, rows), default=0)
    head = "".join(f"{short_name(block):>{_CELL}}" for block in blocks)
    lines = [
        f"  {name:<{width}}" + "".join(f"{cell:>{_CELL}}" for cell in cells) for name, cells in rows.items()
    ]
    return [f"{title}:", f"  {'':<{width}}{head}", *lines]


def _held_out_line(validation: str) -> list[str]:
    """Return a line about the held-out pairs; nothing if the file does not state their figures."""
    try:
        values = json.loads(validation)
        figures = [f"{name} {values[name]:.4g}" for name in ("margin", "implicit_accuracy", "distance")]
    except (ValueError, KeyError, TypeError):  # not measured, or not written by our training
        return [f"on held-out pairs: {validation}"] if validation == "not measured" else []
    return [f"on held-out pairs: {', '.join(figures)}"]


def _ranks(layers: Mapping[str, LowRank]) -> str:
    ranks = sorted({layer.rank for layer in layers.values()}) or [0]
    return str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"


def _size(layers: Mapping[str, LowRank]) -> str:
    num_parameters = sum(layer.up.numel() + layer.down.numel() for layer in layers.values())
    return f"{num_parameters:,} parameters ({4 * num_parameters / 1e6:.3g} MB in fp32)"


def _norm_table(layers: Mapping[str, LowRank]) -> list[str]:
    """Return lines with the number of layers and the Frobenius norm of the update, per block."""
    blocks: dict[str, list[float]] = {}
    for module, layer in layers.items():
        blocks.setdefault(block_of(module), []).append(layer.norm())
    rows = [
        f"  {block:<15}{len(norms):>7}{math.hypot(*norms):>12.4g}"
        for block, norms in sorted(blocks.items(), key=lambda row: depth(row[0]))
    ]
    return [f"  {'block':<15}{'layers':>7}{'norm':>12}", *rows] if rows else []
