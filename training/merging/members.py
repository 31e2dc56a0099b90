"""The experts that take part in a merge: checked against each other once, then read layer by layer."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from ..config import MAX_STRENGTH
from ..experts.expert import SafetyExpert
from ..experts.low_rank import LowRank
from ..rules.categories import FAMILY_NAMES

log = logging.getLogger(__name__)


class Member(NamedTuple):
    """An expert and the strength at which it enters: 1 is as trained."""

    expert: SafetyExpert
    strength: float


@dataclass(frozen=True)
class Members:
    """The experts of a merge, in the order of the result.

    Attributes:
        entries: each expert and its strength, in (0, 2].
        shapes: (d_out, d_in) of every layer that any expert changes, by path, sorted.
    """

    entries: tuple[Member, ...]
    shapes: Mapping[str, tuple[int, int]]

    @classmethod
    def of(cls, experts: Sequence[SafetyExpert], strengths: Sequence[float] | None = None) -> Members:
        """Pair experts with their strengths, leave out experts at strength 0, and compare their layers.

        Args:
            experts: at least one, all of one base model family.
            strengths: one per expert, in [0, 2]; None means 1 for all.

        Raises:
            ValueError: if nothing is left to merge, a strength is out of range, a file holds more than an
                expert can (see `SafetyExpert.check_whole`), or the families or the shapes of a layer differ.
        """
        entries = _entries(experts, strengths)
        for expert, _ in entries:
            expert.check_whole()
        _check_families(entries)
        return cls(entries, layer_shapes(entries))

    def __iter__(self) -> Iterator[Member]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def strengths(self) -> tuple[float, ...]:
        """The strength of each expert."""
        return tuple(strength for _, strength in self.entries)

    @property
    def content_hashes(self) -> tuple[str, ...]:
        """The content hash of each expert."""
        return tuple(expert.content_hash for expert, _ in self.entries)

    def at_strength_one(self) -> Members:
        """Return the same experts as they were trained."""
        return replace(self, entries=tuple(member._replace(strength=1.0) for member in self.entries))

    def parts(self, module: str) -> list[LowRank]:
        """Return each expert's update of a layer, strength folded in; zero if it does not change the layer.

        Args:
            module: path of the layer, one of `shapes`.
        """
        shape = self.shapes[module]
        layers = [(expert.layers.get(module) or _zero(shape), strength) for expert, strength in self.entries]
        return [layer if strength == 1 else layer.scaled(strength) for layer, strength in layers]

    def base_hashes(self) -> dict[str, str]:
        """Return the base models named in the experts' metadata: weights hash -> first expert to name it."""
        first_of: dict[str, str] = {}
        for expert, _ in self.entries:
            base_hash = expert.metadata.get("alignguard.base_hash")
            if base_hash:
                first_of.setdefault(base_hash, expert.name)
        return first_of

    def size_order(self) -> list[int]:
        """Return the rank of each expert by its size as trained; 0 is the largest expert."""
        sizes = [expert_size(expert) for expert, _ in self.entries]
        by_size = sorted(range(len(sizes)), key=lambda i: -sizes[i])
        return [by_size.index(i) for i in range(len(sizes))]


def layer_shapes(members: Sequence[Member]) -> dict[str, tuple[int, int]]:
    """Return (d_out, d_in) of every layer that any expert changes, by path, sorted.

    Raises:
        ValueError: naming both experts and the layer, if they disagree.
    """
    first_of: dict[str, tuple[tuple[int, int], str]] = {}
    for expert, _ in members:
        for module, layer in expert.layers.items():
            shape = (layer.d_out, layer.d_in)
            first_shape, first_name = first_of.setdefault(module, (shape, expert.name))
            if first_shape != shape:
                raise ValueError(
                    f"{expert.name} changes {module} of shape {shape}, but {first_name} has {first_shape} "
                    "there. Merge experts of one base model."
                )
    return {module: first_of[module][0] for module in sorted(first_of)}


def expert_size(expert: SafetyExpert) -> float:
    """Return the Frobenius norm of a whole expert, as trained."""
    return math.hypot(*(layer.norm() for layer in expert.layers.values()))


def warn_of_bases(members: Members) -> None:
    """Log a warning if the experts were trained on different base models of one family, which is allowed."""
    bases = members.base_hashes()
    if len(bases) > 1:
        log.warning(
            "the experts were trained on %d different base models (%s). On any one of them, the experts of "
            "the others may act more weakly.",
            len(bases),
            ", ".join(bases.values()),
        )


def warn_of_initial_a(members: Members) -> None:
    """Log a warning unless the metadata of all experts names one and the same initial A."""
    hashes = {expert.metadata.get("alignguard.initial_a_hash") for expert, _ in members}
    if len(hashes) > 1 or None in hashes:
        log.warning(
            "rowpick_AB mixes rank neurons of experts that did not start from the same A or do not state it "
            "(%d different statements among %d experts). The result may do little; use level output neuron.",
            len(hashes),
            len(members),
        )


def _entries(experts: Sequence[SafetyExpert], strengths: Sequence[float] | None) -> tuple[Member, ...]:
    if not experts:
        raise ValueError("merging needs at least one expert, got none.")
    if strengths is None:
        strengths = [1.0] * len(experts)
    if len(strengths) != len(experts):
        raise ValueError(
            f"strengths must be one per expert, got {len(strengths)} for {len(experts)} experts."
        )
    pairs = list(zip(experts, strengths, strict=True))
    for expert, strength in pairs:
        if not 0 <= strength <= MAX_STRENGTH:  # also refuses NaN
            raise ValueError(
                f"the strength of {expert.name} must be between 0 and {MAX_STRENGTH:g}, got {strength:g}. "
                "1 is as trained; a negative strength would undo safety."
            )
    entries = tuple(Member(expert, float(strength)) for expert, strength in pairs if strength > 0)
    if not entries:
        raise ValueError("every expert has strength 0, so nothing is left to merge. Raise at least one.")
    return entries


def _check_families(members: Sequence[Member]) -> None:
    first = members[0].expert
    for expert, _ in members:
        if expert.family != first.family:
            family, first_family = (FAMILY_NAMES.get(name, name) for name in (expert.family, first.family))
            raise ValueError(
                f"{expert.name} was trained for {family}, but {first.name} for {first_family}. "
                "Merge experts of one base model."
            )


def _zero(shape: tuple[int, int]) -> LowRank:
    return LowRank(torch.zeros(shape[0], 1), torch.zeros(1, shape[1]))
