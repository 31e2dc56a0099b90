"""What a merged expert's file says of its members, as a value to draw and as lines of text."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .low_rank import LowRank

_ORDER = ("time", "add", "conv_in", "down", "mid", "up")


def block_of(module: str) -> str:
    """Return the block of a layer by its diffusers path, such as `down_blocks.0`."""
    return re.match(r"(?:down_blocks|up_blocks)\.\d+|[^.]*", module).group()


def short_name(block: str) -> str:
    """Return a block's name for the head of a column: `down.0`."""
    return block.replace("_blocks", "").replace("_block", "")


def depth(module: str) -> tuple:
    """Return what sorts layers and blocks in the order they run in; numbers count as numbers."""
    place = next((i for i, start in enumerate(_ORDER) if module.startswith(start)), len(_ORDER))
    return place, [(int(part), "") if part.isdigit() else (-1, part) for part in module.split(".")]


def table(title: str, blocks: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    """Return lines of a table: a title, the blocks as heads of columns, and named rows of cells."""
    width = max(map(len, rows), default=0)
    heads = "".join(f"{short_name(block):>9}" for block in blocks)
    lines = [f"  {name:<{width}}" + "".join(f"{cell:>9}" for cell in cells) for name, cells in rows.items()]
    return [f"{title}:", f"  {'':<{width}}{heads}", *lines]


_HASH_DIGITS = 12
_RANK_LEVEL = "rank neuron"


@dataclass(frozen=True)
class MemberFacts:
    """One expert of a merge.

    Attributes:
        name: usually its file's.
        strength: how it entered.
        hash: its content hash, empty if the file does not say.
        members: its own, if it was merged itself.
        method: how they were merged.
    """

    name: str
    strength: float
    hash: str
    members: tuple["MemberFacts", ...]
    method: str


@dataclass(frozen=True)
class LayerFacts:
    """One layer of a merge; per member in their order, and for the result.

    Attributes:
        module: diffusers path.
        won: neurons each member won; empty where experts are mixed.
        num_neurons: neurons of the layer; those nobody won are zero.
        before: Frobenius norm of each member's update, strength folded; empty in files that do not say.
        after: Frobenius norm of the merged update.
        kept: share of the squared norm that survived the cut to output_rank.
    """

    module: str
    won: tuple[int, ...]
    num_neurons: int
    before: tuple[float, ...]
    after: float
    kept: float

    @property
    def block(self) -> str:
        """The block the layer stands in, as `down.0`."""
        return short_name(block_of(self.module))

    def shares(self) -> tuple[float, ...]:
        """Return each member's part of the layer, 1 at most in all: of neurons, else of squared norms."""
        if self.won:
            return tuple(count / self.num_neurons for count in self.won)
        total = math.fsum(norm**2 for norm in self.before)
        return tuple(norm**2 / total if total else 0.0 for norm in self.before)


@dataclass(frozen=True)
class MergeFacts:
    """A merge: its members, its layers in the order they run in, and what a neuron is where any was won."""

    method: str
    members: tuple[MemberFacts, ...]
    layers: tuple[LayerFacts, ...]
    neurons: str

    @property
    def has_winners(self) -> bool:
        """Whether neurons were given to single experts, which mixing methods do not do."""
        return any(layer.won for layer in self.layers)


def merge_facts(metadata: Mapping[str, str], layers: Mapping[str, LowRank]) -> MergeFacts | None:
    """Read a merged file's own account; None if it was not merged, or by a program that writes another one.

    Args:
        metadata: of the file.
        layers: its updates by diffusers path.
    """
    try:
        members = tuple(_member(entry) for entry in json.loads(metadata["alignguard.members"]))
        won, before, kept = (
            json.loads(metadata.get(f"alignguard.{name}", "{}"))
            for name in ("winners", "member_norms", "kept_energy_per_layer")
        )
        of_rank = metadata.get("alignguard.level") == _RANK_LEVEL  # how many they are, the file does not say
        found = [
            LayerFacts(
                module,
                _per_member(won.get(module), members, int),
                sum(won[module]) if of_rank and module in won else layer.d_out,
                _per_member(before.get(module), members, float),
                layer.norm(),
                float(kept.get(module, 1)),
            )
            for module, layer in layers.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    ordered = sorted(found, key=lambda layer: depth(layer.module))
    neurons = "rank neurons" if of_rank else "output neurons"
    return MergeFacts(metadata.get("alignguard.method", ""), members, tuple(ordered), neurons)


def merge_lines(facts: MergeFacts) -> list[str]:
    """Return the members, and per block what each won, the sizes before and after, and the energy kept."""
    lines = ["members:", *_listed(facts.members, "  ")]
    names = [f"{number} {member.name}" for number, member in enumerate(facts.members, start=1)]
    blocks: dict[str, list[LayerFacts]] = {}
    for layer in facts.layers:
        blocks.setdefault(block_of(layer.module), []).append(layer)

    def rows(names: Sequence[str], cell: Callable[[list[LayerFacts], int], str]) -> dict[str, list[str]]:
        return {name: [cell(own, i) for own in blocks.values()] for i, name in enumerate(names)}

    if facts.has_winners:
        won = rows(names, lambda own, i: str(sum(layer.won[i] for layer in own if layer.won)))
        lines += table(f"{facts.neurons} won", list(blocks), won)
    sizes = rows(names, lambda own, i: _norm(layer.before[i] for layer in own)) if _sized(facts) else {}
    sizes |= rows(["merged"], lambda own, _: _norm(layer.after for layer in own))
    lines += table("norm of the update", list(blocks), sizes)
    if any(layer.kept < 1 for layer in facts.layers):
        kept = rows(["merged"], lambda own, _: f"{100 * _kept(own):.1f}")
        lines += table("energy kept at this rank, in %", list(blocks), kept)
    return lines


def _member(entry: Mapping[str, Any]) -> MemberFacts:
    return MemberFacts(
        str(entry["name"]),
        float(entry["strength"]),
        str(entry.get("hash", "")),
        tuple(_member(own) for own in entry.get("members", ())),
        str(entry.get("method", "")),
    )


def _per_member(values: Sequence | None, members: Sequence[MemberFacts], kind: type) -> tuple:
    if values is None:
        return ()
    if len(values) != len(members):
        raise ValueError("a list of a merge must have an entry per member.")
    return tuple(map(kind, values))


def _listed(members: Sequence[MemberFacts], indent: str) -> list[str]:
    lines = []
    for number, member in enumerate(members, start=1):
        named = f", {member.hash[:_HASH_DIGITS]}" if member.hash else ""
        lines.append(f"{indent}{number} {member.name}, strength {member.strength:g}{named}")
        lines += _listed(member.members, f"{indent}    ")
    return lines


def _sized(facts: MergeFacts) -> bool:
    return all(layer.before for layer in facts.layers)


def _norm(norms) -> str:
    return f"{math.hypot(*norms):.4g}"


def _kept(layers: Sequence[LayerFacts]) -> float:
    """Return the share of several layers together, weighted by their squared norms before the cut."""
    after = [layer.after**2 for layer in layers]
    before = [value / max(layer.kept, 1e-12) for value, layer in zip(after, layers, strict=True)]
    return math.fsum(after) / math.fsum(before) if math.fsum(before) else 1.0
