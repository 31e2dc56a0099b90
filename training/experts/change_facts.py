"""What the metadata of an extracted expert says about both models and every layer, to draw or to print."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .low_rank import LowRank
from .merge_facts import block_of, depth, short_name

EXTRACTED_FROM = "alignguard.extracted_from"  # JSON: name and hash of `base` and `tuned`
CHANGE = "alignguard.change"  # JSON: share of the squared change by the names of `SHARES`
LAYERS = "alignguard.change_per_layer"  # JSON: layer -> share of the change; kept and rounding of it
NOT_REPRESENTABLE = "alignguard.not_representable"  # JSON: tensor -> norm of its change
OTHER_PARTS = "alignguard.other_parts"  # the rest of both models, compared
SHARES = {  # share of an extraction's squared change -> where it went
    "kept": "in this expert",
    "rounding": "rounding of the stored weights, not a change",
    "left_out": "in norms and biases, which a LoRA cannot hold",
    "cut": "beyond the rank and energy asked for",
}
_NUM_NAMED = 3  # tensors left out that are named


@dataclass(frozen=True)
class ExtractedLayer:
    """One layer that tuning changed.

    Attributes:
        module: diffusers path.
        share: of the squared change of the whole UNet, in [0, 1].
        kept: share of the layer's squared change that the expert holds, in [0, 1].
        rounding: share of it that rounding of the stored weights explains, in [0, 1].
    """

    module: str
    share: float
    kept: float
    rounding: float

    @property
    def block(self) -> str:
        """The block of the layer, such as `down.0`."""
        return short_name(block_of(self.module))


@dataclass(frozen=True)
class ExtractionFacts:
    """An extraction.

    Attributes:
        base: name of the model before tuning.
        tuned: name of the model after tuning.
        shares: where the squared change went, by the names of `SHARES`; they add up to 1.
        layers: those that changed, in the order in which they run.
        by_rank: (rank, share of the squared change that an expert of this rank would hold), rising.
        left_out: norm of the change of each tensor that a LoRA cannot hold.
        other_parts: how the models differ besides their UNets, a sentence.
    """

    base: str
    tuned: str
    shares: Mapping[str, float]
    layers: tuple[ExtractedLayer, ...]
    by_rank: tuple[tuple[int, float], ...]
    left_out: Mapping[str, float]
    other_parts: str


def extraction_facts(metadata: Mapping[str, str], layers: Mapping[str, LowRank]) -> ExtractionFacts | None:
    """Read the facts of an extracted file; None if it is none, or another program wrote its metadata.

    Args:
        metadata: of the file.
        layers: its updates by diffusers path.
    """
    try:
        models = json.loads(metadata[EXTRACTED_FROM])
        shares = {name: float(json.loads(metadata[CHANGE])[name]) for name in SHARES}
        left_out = {name: float(norm) for name, norm in json.loads(metadata[NOT_REPRESENTABLE]).items()}
        changed = [
            ExtractedLayer(module, *(float(value) for value in values))
            for module, values in json.loads(metadata[LAYERS]).items()
        ]
        names = str(models["base"]["name"]), str(models["tuned"]["name"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    ordered = tuple(sorted(changed, key=lambda layer: depth(layer.module)))
    by_rank = tuple(_by_rank(ordered, layers))
    return ExtractionFacts(*names, shares, ordered, by_rank, left_out, metadata.get(OTHER_PARTS, ""))


def extraction_lines(facts: ExtractionFacts) -> list[str]:
    """Return lines about both models, where the change went, and what is not in the expert."""
    lines = [f"extracted from: {facts.tuned}, tuned from {facts.base}"]
    if facts.other_parts:
        lines.append(f"besides the UNet, which is all this expert holds: {facts.other_parts}")
    lines += ["squared change of the weights:"]
    lines += [f"  {100 * facts.shares[name]:>8.3f} %  {text}" for name, text in SHARES.items()]
    if facts.by_rank:
        kept = ", ".join(f"{100 * share:.1f} % at rank {rank}" for rank, share in facts.by_rank)
        lines.append(f"of that change an expert holds {kept}")
    return [*lines, *_block_lines(facts.layers), *_left_out_line(facts.left_out)]


def _by_rank(changed: Iterable[ExtractedLayer], layers: Mapping[str, LowRank]) -> list[tuple[int, float]]:
    """Return what each power of two up to the rank keeps; the components of a layer come largest first."""
    squares: list[list[float]] = []
    for layer in changed:
        update = layers.get(layer.module)
        if update is not None and update.rank:
            parts = update.up.double().square().sum(0) * update.down.double().square().sum(1)  # (rank,)
            total = float(parts.sum()) or 1.0
            scale = layer.share * layer.kept / total
            squares.append(sorted((scale * value for value in parts.tolist()), reverse=True))
    most = max(map(len, squares), default=0)
    ranks = [2**n for n in range(most.bit_length()) if 2**n < most] + [most] * bool(most)
    return [(rank, math.fsum(value for row in squares for value in row[:rank])) for rank in ranks]


def _block_lines(layers: Iterable[ExtractedLayer]) -> list[str]:
    blocks: dict[str, list[ExtractedLayer]] = {}
    for layer in layers:
        blocks.setdefault(layer.block, []).append(layer)
    lines = [f"  {'block':<15}{'of the change':>15}{'kept':>9}{'rounding':>10}{'beyond rank':>13}"]
    for block, group in blocks.items():
        share = math.fsum(layer.share for layer in group)
        kept, rounding = (
            math.fsum(layer.share * getattr(layer, name) for layer in group) / (share or 1.0)
            for name in ("kept", "rounding")
        )
        cells = (f"{100 * value:.1f} %" for value in (share, kept, rounding, max(0.0, 1 - kept - rounding)))
        lines.append("  {:<15}{:>15}{:>9}{:>10}{:>13}".format(block, *cells))
    return lines if len(lines) > 1 else []


def _left_out_line(norms: Mapping[str, float]) -> list[str]:
    """Count the tensors left out by kind, and name those that changed most."""
    if not norms:
        return []
    kinds = Counter(_kind(name) for name in norms)
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    largest = sorted(norms, key=lambda name: (-norms[name], name))[:_NUM_NAMED]
    names = ", ".join(f"{name} ({norms[name]:.3g})" for name in largest)
    return [f"changed, but not in this expert: {counts}; most: {names}"]


def _kind(name: str) -> str:
    module, _, part = name.rpartition(".")
    kind = {"weight": "weights", "bias": "biases"}.get(part, "other tensors")
    return f"norm {kind}" if "norm" in module.rpartition(".")[2] else kind
