"""Collects what `co_merge` needs: counters of how active each expert is in each neuron, in two halves."""

import weakref
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..config import MergeConfig
from ..low_rank import LowRank
from .co_merge import LayerActivity, LayerStatistics, Stacked, activity, choose
from .collector import tokens_of
from .layer import NO_WINNER
from .members import Member, expert_size

_AT_ONCE = 8  # passes whose activities wait to be counted


class ActivityCollector:
    """Evaluates all experts on each layer's input there and then; see `Collector`.

    Three numbers per expert and neuron are kept for each half of the inputs: for SDXL's attention layers
    and seven experts some 100 MB. Activity at other strengths follows from that at 1, but who wins an input
    does not, and to keep the activities of every input would take gigabytes: wins hold for one set of
    strengths.
    """

    kind: ClassVar[str] = "activity"
    needs_categories: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ("statistic", "level", "normalize", "stop_agreement")

    def __init__(
        self,
        members: Sequence[Member],
        parts: Mapping[str, Sequence[LowRank]],
        categories: Sequence[str] | None,
        config: MergeConfig,
    ) -> None:
        scales = [1 / (expert_size(expert) or 1.0) if config.normalize else 1.0 for expert, _ in members]
        self._parts = {
            module: [part.scaled(scale) for part, scale in zip(own, scales, strict=True)]
            for module, own in parts.items()
        }
        self._stacked = {module: Stacked.of(own) for module, own in self._parts.items()}
        strengths = [1.0 if config.normalize else member.strength for member in members]
        self._strengths = None if len(set(strengths)) == 1 else torch.tensor(strengths)
        self._config = config
        self._halves: tuple[dict[str, LayerStatistics], dict[str, LayerStatistics]] = ({}, {})
        self._half = self._halves[0]
        self._waiting: dict[str, list[Tensor]] = {}  # activities by layer: counted together, which is faster
        self._told: dict[str, tuple[weakref.ref, Tensor]] = {}  # by layer: last input and its result

    def begin(self, number: int, categories: Sequence[str] | None) -> None:
        """Let odd rounds be one half and even rounds the other."""
        if self._half is not self._halves[number % 2]:
            self._count_waiting()
            self._half = self._halves[number % 2]

    def add(self, module: str, inputs: Tensor) -> None:
        """Measure how active the experts are in this layer; a prompt stays the same at every timestep."""
        last, found = self._told.get(module, (None, None))
        if last is None or last() is not inputs:
            found = activity(tokens_of(inputs), self._stacked[module])
            self._told[module] = (weakref.ref(inputs), found)
        self._waiting.setdefault(module, []).append(found)
        if len(self._waiting[module]) == _AT_ONCE:
            self._count(module)

    def _count_waiting(self) -> None:
        for module in list(self._waiting):
            self._count(module)

    def _count(self, module: str) -> None:
        found = torch.cat(self._waiting.pop(module), dim=1)
        strengths = None if self._strengths is None else self._strengths.to(found.device)
        new = LayerStatistics.of(found, strengths)
        self._half[module] = self._half[module].plus(new) if module in self._half else new

    def agreement(self) -> float | None:
        """Return the share of choices that both halves make alike, each weighted by the norm of its row."""
        self._count_waiting()
        first, second = self._halves
        if not first or not second:
            return None
        alike = total = 0.0
        for module in self._parts:
            one, two, both = (
                choose(self._split(module, counts), self._config.statistic, self._config.level)
                for counts in (first[module], second[module], first[module].plus(second[module]))
            )
            weights = _norms(self._parts[module], both, self._config.level)
            alike += float(weights[one == two].sum())
            total += float(weights.sum())
        return alike / total if total else 1.0

    def layers(self) -> dict[str, LayerActivity]:
        """Return the counters of both halves together."""
        self._count_waiting()
        first, second = self._halves
        whole = {m: first[m].plus(second[m]) if m in second else first[m] for m in self._parts}
        return {module: self._split(module, counts.to("cpu")) for module, counts in whole.items()}

    @staticmethod
    def layer_of(groups: Sequence[Sequence[Tensor]]) -> LayerActivity:
        """Return the counters of a layer from their tensors."""
        return LayerActivity(*(LayerStatistics(wins.long(), *others) for wins, *others in groups))

    def _split(self, module: str, counts: LayerStatistics) -> LayerActivity:
        return LayerActivity.of(counts, self._parts[module][0].d_out)


def _norms(parts: Sequence[LowRank], winners: Tensor, level: str) -> Tensor:
    """Return the norm of the row, or of the rank component, that each winner would give; 0 without one."""
    if level == "rank neuron":
        norms = [part.up.norm(dim=0) * part.down.norm(dim=1) for part in parts]
        norms = [torch.nn.functional.pad(norm, (0, len(winners) - len(norm))) for norm in norms]
    else:  # the norm of row i of B A is that of B_i R^T, with A^T = Q R
        norms = [(part.up @ torch.linalg.qr(part.down.T).R.T).norm(dim=1) for part in parts]
    of_winner = torch.stack(norms).gather(0, winners.clamp(min=0)[None])[0]
    return of_winner.masked_fill(winners == NO_WINNER, 0.0)
