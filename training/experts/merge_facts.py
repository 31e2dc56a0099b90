"""What the metadata of a merged expert says about its members and layers, as values to draw or to print."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .low_rank import LowRank

_BLOCK_ORDER = ("time", "add", "conv_in", "down", "mid", "up")
_RANK_LEVEL = "rank neuron"


@dataclass(frozen=True)
class MemberFacts:
    """One expert of a merge.

    Attributes:
        name: usually its file name.
        strength: at which it entered.
        hash: its content hash; empty if the file does not state it.
        members: its members, if it is a merge itself.
        method: by which its members were merged.
    """

    name: str
    strength: float
    hash: str
    members: tuple["MemberFacts", ...]
    method: str


@dataclass(frozen=True)
class LayerFacts:
    """One layer of a merge; tuples have an entry per member, in their order.

    Attributes:
        module: diffusers path.
        won: neurons that each member won; empty if the method mixes experts.
        num_neurons: neurons of the layer; a neuron that no member won is zero.
        before: Frobenius norm of each member's update, strength folded in; empty if not stated.
        after: Frobenius norm of the merged update.
        kept: share of the squared norm that the merge kept.
    """

    module: str
    won: tuple[int, ...]
    num_neurons: int
    before: tuple[float, ...]
    after: float
    kept: float

    @property
    def block(self) -> str:
        """The block of the layer, such as `down.0`."""
        return short_name(block_of(self.module))

    def shares(self) -> tuple[float, ...]:
        """Return each member's share of the neurons, or else of the squared norms; at most 1 in total."""
        if self.won:
            return tuple(count / self.num_neurons for count in self.won)
        total = math.fsum(norm**2 for norm in self.before)
        return tuple(norm**2 / total if total else 0.0 for norm in self.before)


@dataclass(frozen=True)
class MergeFacts:
    """A merge.

    Attributes:
        method: name of the merge method.
        members: the experts.
        layers: in the order in which they run.
        neurons: the kind of neuron that members win, for people.
    """

    method: str
    members: tuple[MemberFacts, ...]
    layers: tuple[LayerFacts, ...]
    neurons: str

    @property
    def has_winners(self) -> bool:
        """Whether each neuron was taken from one expert; a method that mixes experts has no winners."""
        return any(layer.won for layer in self.layers)


def merge_facts(metadata: Mapping[str, str], layers: Mapping[str, LowRank]) -> MergeFacts | None:
    """Read the facts of a merged file; None if it is not a merge, or another program wrote its metadata.

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
        is_by_rank = metadata.get("alignguard.level") == _RANK_LEVEL  # the file does not state their number
        facts = [
            LayerFacts(
                module,
                _per_member(won.get(module), members, int),
                sum(won[module]) if is_by_rank and module in won else layer.d_out,
                _per_member(before.get(module), members, float),
                layer.norm(),
                float(kept.get(module, 1)),
            )
            for module, layer in layers.items()
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    ordered = sorted(facts, key=lambda layer: depth(layer.module))
    neurons = "rank neurons" if is_by_rank else "output neurons"
    return MergeFacts(metadata.get("alignguard.method", ""), members, tuple(ordered), neurons)


def block_of(module: str) -> str:
    """Return the block of a layer from its path, such as `down_blocks.0` or `joint_blocks.3`."""
    return re.match(r"(?:(?:[a-z]+_)?blocks|[a-z]+_refiner|layers)\.\d+|[^.]*", module).group()


def short_name(block: str) -> str:
    """Return the short name of a block, such as `down.0`."""
    return block.replace("_blocks", "").replace("_block", "")


def depth(module: str) -> tuple:
    """Return a key that sorts layers and blocks in the order in which they run, numbers by value."""
    place = next((i for i, start in enumerate(_BLOCK_ORDER) if module.startswith(start)), len(_BLOCK_ORDER))
    return place, [(int(part), "") if part.isdigit() else (-1, part) for part in module.split(".")]


def _member(entry: Mapping[str, Any]) -> MemberFacts:
    return MemberFacts(
        str(entry["name"]),
        float(entry["strength"]),
        str(entry.get("hash", "")),
        tuple(_member(inner) for inner in entry.get("members", ())),
        str(entry.get("method", "")),
    )


def _per_member(values: Sequence | None, members: Sequence[MemberFacts], kind: type) -> tuple:
    if values is None:
        return ()
    if len(values) != len(members):
        raise ValueError(f"must have one value per member, got {len(values)} for {len(members)} members.")
    return tuple(map(kind, values))
