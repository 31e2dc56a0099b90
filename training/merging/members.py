"""The experts that take part in a merge: checked against each other, their layers brought together."""

import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from ..experts.expert import SafetyExpert
from ..experts.low_rank import LowRank
from ..rules.categories import FAMILY_NAMES

log = logging.getLogger(__name__)

MAX_STRENGTH = 2.0


class Member(NamedTuple):
    """One expert of a merge and how strongly it enters: 1 as trained, in (0, 2]."""

    expert: SafetyExpert
    strength: float


def members_of(experts: Sequence[SafetyExpert], strengths: Sequence[float] | None) -> tuple[Member, ...]:
    """Pair experts with their strengths and leave out those at strength 0, which changes nothing else.

    Args:
        experts: at least one, all of one base model line.
        strengths: one per expert, in [0, 2]; None is 1 for all.

    Raises:
        ValueError: if there is nothing to merge, a strength is out of range, or the families differ.
    """
    if not experts:
        raise ValueError("merging needs at least one expert, got none.")
    if strengths is None:
        strengths = [1.0] * len(experts)
    if len(strengths) != len(experts):
        raise ValueError(
            f"strengths must be one per expert, got {len(strengths)} for {len(experts)} experts."
        )
    for expert, strength in zip(experts, strengths, strict=True):
        _check_strength(expert.name, strength)
    pairs = zip(experts, strengths, strict=True)
    members = tuple(Member(expert, float(strength)) for expert, strength in pairs if strength > 0)
    if not members:
        raise ValueError("every expert has strength 0, so nothing is left to merge. Raise at least one.")
    _check_families(members)
    return members


def base_hashes(members: Sequence[Member]) -> dict[str, str]:
    """Return the base models that members say they were trained on: weights' hash -> first such member."""
    found: dict[str, str] = {}
    for expert, _ in members:
        stated = expert.metadata.get("alignguard.base_hash")
        if stated:
            found.setdefault(stated, expert.name)
    return found


def warn_of_bases(members: Sequence[Member]) -> None:
    """Log a warning if members were trained on different base models of the family; it is allowed."""
    bases = base_hashes(members)
    if len(bases) > 1:
        log.warning(
            "the experts were trained on %d different base models (%s); on any one of them, those of the "
            "others may act more weakly.",
            len(bases),
            ", ".join(bases.values()),
        )


def warn_of_initial_a(members: Sequence[Member]) -> None:
    """Log a warning unless all members say that their training started from one and the same A."""
    stated = {expert.metadata.get("alignguard.initial_a_hash") for expert, _ in members}
    if len(stated) > 1 or None in stated:
        log.warning(
            "rowpick_AB mixes rank neurons of experts that did not start from the same A, or do not say so "
            "(%d different statements among %d experts); the result may do little. Use level output neuron.",
            len(stated),
            len(members),
        )


def layer_shapes(members: Sequence[Member]) -> dict[str, tuple[int, int]]:
    """Return (d_out, d_in) of every layer any member has, by path, sorted.

    Raises:
        ValueError: naming both experts and the layer, if they disagree.
    """
    found: dict[str, tuple[tuple[int, int], str]] = {}
    for expert, _ in members:
        for module, layer in expert.layers.items():
            shape = (layer.d_out, layer.d_in)
            known, first = found.setdefault(module, (shape, expert.name))
            if known != shape:
                raise ValueError(
                    f"{expert.name} changes {module} of shape {shape}, but {first} one of {known}. "
                    "Merge experts of one base model."
                )
    return {module: found[module][0] for module in sorted(found)}


def layer_parts(members: Sequence[Member], module: str, shape: tuple[int, int]) -> list[LowRank]:
    """Return the update of each member in one layer, strength folded; zero where a member has no such layer.

    Args:
        members: in the order of the result.
        module: path of the layer.
        shape: its (d_out, d_in).
    """
    layers = [(expert.layers.get(module) or _zero(shape), strength) for expert, strength in members]
    return [layer if strength == 1 else layer.scaled(strength) for layer, strength in layers]


def size_order(members: Sequence[Member]) -> list[int]:
    """Return each member's place when they are sorted by their size as trained, the largest first."""
    sizes = [expert_size(member.expert) for member in members]
    by_size = sorted(range(len(members)), key=lambda i: -sizes[i])
    return [by_size.index(i) for i in range(len(members))]


def expert_size(expert: SafetyExpert) -> float:
    """Return the Frobenius norm of a whole expert, as trained."""
    return math.hypot(*(layer.norm() for layer in expert.layers.values()))


def _zero(shape: tuple[int, int]) -> LowRank:
    return LowRank(torch.zeros(shape[0], 1), torch.zeros(1, shape[1]))


def _check_strength(name: str, strength: float) -> None:
    if not 0 <= strength <= MAX_STRENGTH:  # also refuses a NaN
        raise ValueError(
            f"the strength of {name} must be between 0 and {MAX_STRENGTH:g}, got {strength:g}. "
            "1 is as trained, and below 0 safety would be undone."
        )


def _check_families(members: Sequence[Member]) -> None:
    first = members[0].expert
    for expert, _ in members:
        if expert.family != first.family:
            own, other = (FAMILY_NAMES.get(name, name) for name in (expert.family, first.family))
            raise ValueError(
                f"{expert.name} was trained for {own}, but {first.name} for {other}. "
                "Merge experts of one base model."
            )
