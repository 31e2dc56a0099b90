"""The text about an expert that the Info node and the `info` command show to people."""

import json
import math
import re
from collections.abc import Mapping, Sequence

from ..low_rank import LowRank
from ..taxonomy import FAMILY_NAMES
from .extraction import extraction_lines

_STATED = {  # metadata key -> label
    "alignguard.objective": "objective",
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
        metadata: the file's strings; `alignguard.*` are shown.

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
    lines += [*extraction_lines(metadata), *_members(metadata), *_winner_table(metadata)]
    return "\n".join([*lines, *_norm_table(layers)])


def _ranks(layers: Mapping[str, LowRank]) -> str:
    ranks = sorted({layer.rank for layer in layers.values()}) or [0]
    return str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"


def _size(layers: Mapping[str, LowRank]) -> str:
    num_parameters = sum(layer.up.numel() + layer.down.numel() for layer in layers.values())
    return f"{num_parameters:,} parameters ({4 * num_parameters / 1e6:.3g} MB in fp32)"


def _members(metadata: Mapping[str, str]) -> list[str]:
    """List the experts of a merged file; what is not the list our merge writes is shown as it is."""
    text = metadata.get("alignguard.members")
    if not text:
        return []
    try:
        members = [f"  {m['name']}, strength {float(m['strength']):g}" for m in json.loads(text)]
    except (ValueError, KeyError, TypeError):
        members = [f"  {text}"]
    return ["members:", *members]


def _winner_table(metadata: Mapping[str, str]) -> list[str]:
    """List how many output neurons each member of a co-merge won per block; nothing for other files."""
    try:
        names = [member["name"] for member in json.loads(metadata["alignguard.members"])]
        won: dict[str, list[int]] = {}
        for module, counts in json.loads(metadata["alignguard.winners"]).items():
            total = won.get(_block(module), [0] * len(names))
            won[_block(module)] = [a + int(b) for a, b in zip(total, counts, strict=True)]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    blocks = sorted(won.items(), key=_depth)
    width = max(map(len, names), default=0)
    heads = "".join(f"{block.replace('_blocks', '').replace('_block', ''):>9}" for block, _ in blocks)
    rows = [
        f"  {name:<{width}}" + "".join(f"{counts[i]:>9}" for _, counts in blocks)
        for i, name in enumerate(names)
    ]
    return ["output neurons won:", f"  {'':<{width}}{heads}", *rows]


def _norm_table(layers: Mapping[str, LowRank]) -> list[str]:
    """List the size of the update per block: Frobenius norm over the block's layers."""
    blocks: dict[str, list[float]] = {}
    for module, layer in layers.items():
        blocks.setdefault(_block(module), []).append(layer.norm())
    rows = [
        f"  {block:<15}{len(norms):>7}{math.hypot(*norms):>12.4g}"
        for block, norms in sorted(blocks.items(), key=_depth)
    ]
    return [f"  {'block':<15}{'layers':>7}{'norm':>12}", *rows] if rows else []


def _block(module: str) -> str:
    return re.match(r"(?:down_blocks|up_blocks)\.\d+|[^.]*", module).group()


def _depth(row: tuple[str, Sequence[float]]) -> tuple[int, str]:
    order = ("time", "add", "conv_in", "down", "mid", "up")
    return next((i for i, start in enumerate(order) if row[0].startswith(start)), len(order)), row[0]
