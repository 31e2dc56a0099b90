"""What other LoRAs leave of an expert: their updates add up, and may point against each other.

Modular LoRA (arXiv:2412.00357) deploys W0 + dW_safe + dW_task, each trained on W0 alone, which is what
loading two LoRAs does. How much of dW_safe survives in the sum is our own measure, a diagnostic of the
weights; what is drawn decides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..experts.expert import SafetyExpert
from ..experts.low_rank import LowRank, concatenate
from ..merging.members import MAX_STRENGTH, Member, layer_shapes
from ..rules.categories import FAMILY_NAMES

WORST = 5  # layers named in the report
_TINY = 1e-6  # singular values below this share of the largest are rounding


class StackedLayer(NamedTuple):
    """One layer of an expert under other LoRAs.

    Attributes:
        module: its path.
        retention: 1 + <dS, dF> / |dS|^2, the expert's direction in the sum: 1 untouched, 0 cancelled, below
            0 reversed; None where the expert changes nothing.
        overlap: |U_S^T U_F|_F^2 / min(rank_S, rank_F) of the output directions, in [0, 1] (Hu et al. 2021,
            arXiv:2106.09685, section 7.2); None where one of them changes nothing.
        size: |dF| / |dS|; None as retention.
    """

    module: str
    retention: float | None
    overlap: float | None
    size: float | None


@dataclass(frozen=True)
class SafetyStack:
    """An expert under other LoRAs.

    Args:
        name: of the expert.
        others: names of the LoRAs.
        strength: of the expert.
        retention: of all layers together, 1 + sum <dS, dF> / sum |dS|^2.
        restoring_strength: of the expert, at which its retention is 1 again, measured in what it had.
        layers: every layer of the expert, in order of their paths.
    """

    name: str
    others: tuple[str, ...]
    strength: float
    retention: float
    restoring_strength: float
    layers: tuple[StackedLayer, ...]

    @property
    def min_retention(self) -> float:
        """The lowest retention of any layer."""
        return min(layer.retention for layer in self._measured())

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values."""
        named = {"name": self.name, "others": list(self.others), "strength": self.strength}
        figures = {"retention": self.retention, "min_retention": self.min_retention}
        layers = [layer._asdict() for layer in self.layers]
        return named | figures | {"restoring_strength": self.restoring_strength, "layers": layers}

    def report(self) -> str:
        """Return it for people: the whole, what would restore it, and the layers it is lowest in."""
        measured = sorted(self._measured(), key=lambda layer: layer.retention)
        opposed = sum(layer.retention < 1 for layer in measured)
        lines = [
            f"{self.name} at strength {self.strength:g} under {', '.join(self.others)}",
            f"retention of its direction: {self.retention:.3f} in all (1: untouched, 0: cancelled)",
            f"{opposed} of {len(measured)} layers are opposed; lowest:",
            *(
                f"- {layer.module}: {layer.retention:.3f}, overlap {_shown(layer.overlap)}, "
                f"LoRAs {layer.size:.3g} x as large"
                for layer in measured[:WORST]
            ),
        ]
        return "\n".join([*lines, self._advice()])

    def _advice(self) -> str:
        if self.retention >= 1:
            return "As a whole the LoRAs do not work against it. This is about weights: judge pictures too."
        reach = "" if self.restoring_strength <= MAX_STRENGTH else f", more than the {MAX_STRENGTH:g} allowed"
        return (
            f"Strength {self.restoring_strength:.2f} would restore it{reach}. This is about weights: judge "
            "pictures too."
        )

    def _measured(self) -> list[StackedLayer]:
        return [layer for layer in self.layers if layer.retention is not None]


def safety_stack(
    expert: SafetyExpert, others: Sequence[tuple[SafetyExpert, float]], *, strength: float = 1.0
) -> SafetyStack:
    """Measure what other LoRAs leave of an expert's update, from their factors.

    Args:
        expert: the safety expert.
        others: each LoRA that acts beside it, and its strength, which may be negative.
        strength: of the expert, in (0, 2].

    Raises:
        ValueError: if there is no other LoRA, the expert changes nothing, its strength is out of range, or
            they are not of one base model.
    """
    members = tuple(Member(lora, float(own)) for lora, own in others)
    _check(expert, members, strength)
    layer_shapes((Member(expert, strength), *members))
    layers, opposed, total = [], 0.0, 0.0
    for module in sorted(expert.layers):
        own = expert.layers[module].scaled(strength)
        parts = [lora.layers[module].scaled(by) for lora, by in members if module in lora.layers]
        other = concatenate(parts) if parts else None
        inner, squared = own.inner(other) if other else 0.0, own.inner(own)
        layers.append(_layer(module, own, other, inner, squared))
        opposed, total = opposed + inner, total + squared
    if total == 0:
        raise ValueError(f"{expert.name} changes nothing, so nothing of it can be kept.")
    retention = 1 + opposed / total
    names = tuple(lora.name for lora, _ in members)
    restoring = strength * (1 - opposed / total)  # linear in the strength: s |S|^2 + <S, F> = s0 |S|^2
    return SafetyStack(expert.name, names, strength, retention, restoring, tuple(layers))


def _layer(module: str, own: LowRank, other: LowRank | None, inner: float, squared: float) -> StackedLayer:
    if squared == 0:
        return StackedLayer(module, None, None, None)
    size = other.norm() / math.sqrt(squared) if other else 0.0
    return StackedLayer(module, 1 + inner / squared, _overlap(own, other) if size else None, size)


def _overlap(first: LowRank, second: LowRank) -> float:
    spaces = [_output_space(part) for part in (first, second)]
    shared = (spaces[0].T @ spaces[1]).square().sum()
    return min(1.0, float(shared) / min(space.shape[1] for space in spaces))


def _output_space(part: LowRank) -> Tensor:
    """Return an orthonormal basis of what the update can add to the outputs, (d_out, its true rank)."""
    q_up, r_up = torch.linalg.qr(part.up.double())
    r_down = torch.linalg.qr(part.down.double().T)[1]
    left, values, _ = torch.linalg.svd(r_up @ r_down.T)
    return q_up @ left[:, : int((values > _TINY * values[0]).sum())]


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _check(expert: SafetyExpert, members: Sequence[Member], strength: float) -> None:
    if not members:
        raise ValueError("checking a stack needs at least one LoRA beside the expert, got none.")
    if not 0 < strength <= MAX_STRENGTH:
        raise ValueError(
            f"the expert's strength must be above 0 and at most {MAX_STRENGTH:g}, got {strength:g}."
        )
    for lora, _ in members:
        if lora.family != expert.family:
            own, other = (FAMILY_NAMES.get(name, name) for name in (lora.family, expert.family))
            raise ValueError(
                f"{lora.name} was trained for {own}, but {expert.name} for {other}. Check LoRAs of one base "
                "model."
            )
