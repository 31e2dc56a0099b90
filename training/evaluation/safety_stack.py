"""Retention: how much of an expert's update is left when other LoRAs are added to it.

Modular LoRA (arXiv:2412.00357) deploys W0 + dW_safe + dW_task, each trained on W0 alone, which is what
loading two LoRAs does. The updates add up and may oppose each other. How much of dW_safe survives in the sum
is our own measure, a diagnostic of the weights; the images decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import MAX_STRENGTH
from ..experts.expert import SafetyExpert
from ..experts.low_rank import LowRank, concatenate
from ..merging.members import Member, layer_shapes
from ..rules.categories import FAMILY_NAMES

WORST = 5  # layers named in the report
_TINY = 1e-6  # singular values below this share of the largest are rounding errors


class StackedLayer(NamedTuple):
    """One layer of an expert under other LoRAs, with dS the expert's update and dF the sum of the LoRAs'.

    Attributes:
        module: its path.
        retention: 1 + <dS, dF> / |dS|^2, the share of the expert's direction in the sum: 1 untouched, 0
            cancelled, below 0 reversed; None if the expert does not change the layer.
        overlap: |U_S^T U_F|_F^2 / min(rank_S, rank_F) of the output directions, in [0, 1] (Hu et al. 2021,
            arXiv:2106.09685, section 7.2); None if one of them does not change the layer.
        size: |dF| / |dS|; None if the expert does not change the layer.
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
        retention: over all layers, 1 + sum <dS, dF> / sum |dS|^2.
        restoring_strength: strength of the expert at which the sum contains its direction as if it were
            alone at `strength`.
        layers: every layer of the expert, sorted by path.
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
        """Return the retention, the layers where it is lowest, and the strength that restores it, as text."""
        measured = sorted(self._measured(), key=lambda layer: layer.retention)
        opposed = sum(layer.retention < 1 for layer in measured)
        lines = [
            f"{self.name} at strength {self.strength:g} under {', '.join(self.others)}",
            f"retention of its direction: {self.retention:.3f} in all (1: untouched, 0: cancelled)",
            f"{opposed} of {len(measured)} layers are opposed; lowest:",
            *(
                f"- {layer.module}: {layer.retention:.3f}, overlap {_overlap_text(layer.overlap)}, "
                f"LoRAs {layer.size:.3g} x as large"
                for layer in measured[:WORST]
            ),
        ]
        return "\n".join([*lines, self._advice()])

    def _advice(self) -> str:
        caution = "This compares weights only: judge pictures too."
        if self.retention >= 1:
            return f"As a whole, the LoRAs do not work against the expert. {caution}"
        reach = "" if self.restoring_strength <= MAX_STRENGTH else f", more than the {MAX_STRENGTH:g} allowed"
        return f"Strength {self.restoring_strength:.2f} would restore it{reach}. {caution}"

    def _measured(self) -> list[StackedLayer]:
        return [layer for layer in self.layers if layer.retention is not None]


def _overlap_text(overlap: float | None) -> str:
    return "none" if overlap is None else f"{overlap:.2f}"


def safety_stack(
    expert: SafetyExpert, others: Sequence[tuple[SafetyExpert, float]], *, strength: float = 1.0
) -> SafetyStack:
    """Measure, from the factors, how much of an expert's update is left under other LoRAs.

    Args:
        expert: the safety expert.
        others: each LoRA beside it, and its strength, which may be negative.
        strength: of the expert, in (0, 2].

    Raises:
        ValueError: if there is no other LoRA, if the expert changes nothing, if its strength is out of range,
            or if they were trained for different base models.
    """
    expert.check_whole()
    members = tuple(Member(lora, float(lora_strength)) for lora, lora_strength in others)
    _check(expert, members, strength)
    layer_shapes((Member(expert, strength), *members))
    layers, opposed, total = [], 0.0, 0.0
    for module in sorted(expert.layers):
        safe = expert.layers[module].scaled(strength)
        parts = [lora.layers[module].scaled(by) for lora, by in members if module in lora.layers]
        task = concatenate(parts) if parts else None
        inner, squared = safe.inner(task) if task else 0.0, safe.inner(safe)
        layers.append(_layer(module, safe, task, inner, squared))
        opposed, total = opposed + inner, total + squared
    if total == 0:
        raise ValueError(f"{expert.name} changes nothing, so its retention is not defined.")
    retention = 1 + opposed / total
    names = tuple(lora.name for lora, _ in members)
    restoring = strength * (1 - opposed / total)  # linear in the strength: s |S|^2 + <S, F> = s0 |S|^2
    return SafetyStack(expert.name, names, strength, retention, restoring, tuple(layers))


def _check(expert: SafetyExpert, members: Sequence[Member], strength: float) -> None:
    if not members:
        raise ValueError("checking a stack needs at least one LoRA beside the expert, got none.")
    if not 0 < strength <= MAX_STRENGTH:
        raise ValueError(
            f"the expert's strength must be above 0 and at most {MAX_STRENGTH:g}, got {strength:g}."
        )
    for lora, _ in members:
        if lora.family != expert.family:
            lora_family, expert_family = (
                FAMILY_NAMES.get(name, name) for name in (lora.family, expert.family)
            )
            raise ValueError(
                f"{lora.name} was trained for {lora_family}, but {expert.name} for {expert_family}. Check "
                "LoRAs of one base model."
            )


def _layer(module: str, safe: LowRank, task: LowRank | None, inner: float, squared: float) -> StackedLayer:
    if squared == 0:
        return StackedLayer(module, None, None, None)
    size = task.norm() / math.sqrt(squared) if task else 0.0
    return StackedLayer(module, 1 + inner / squared, _overlap(safe, task) if size else None, size)


def _overlap(first: LowRank, second: LowRank) -> float:
    spaces = [_output_space(update) for update in (first, second)]
    shared = (spaces[0].T @ spaces[1]).square().sum()
    return min(1.0, float(shared) / min(space.shape[1] for space in spaces))


def _output_space(update: LowRank) -> Tensor:
    """Return an orthonormal basis of the outputs that an update can change, (d_out, its true rank)."""
    q_up, r_up = torch.linalg.qr(update.up.double())
    r_down = torch.linalg.qr(update.down.double().T)[1]
    left, values, _ = torch.linalg.svd(r_up @ r_down.T)
    return q_up @ left[:, : int((values > _TINY * values[0]).sum())]
