"""Collects what `co_merge` needs: counters of how active each expert is in each neuron, in two halves."""

import weakref
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..config import MergeConfig
from ..experts.low_rank import LowRank
from .co_merge import LayerActivity, LayerStatistics, Stacked, activity, choose
from .collector import tokens_of
from .input_record import InputRecord, RecordedActivity, second_moments, strongest
from .layer import NO_WINNER
from .members import Member, expert_size

_AT_ONCE = 8  # passes whose activities wait to be counted
_Found = tuple[Tensor, InputRecord | None]  # in one pass


class ActivityCollector:
    """Evaluates all experts on each layer's input there and then; see `Collector`.

    Three numbers per expert and neuron are kept for each half of the inputs: for SDXL's attention layers
    and seven experts some 100 MB. All of it is of the experts at strength 1, and what they do at others
    follows; to say who wins an input then, something of each input is kept too, see `input_record`.
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
        self._config = config
        self._records: dict[str, list[InputRecord]] = {}
        self._recorded: dict[str, Tensor] = {}  # normalised experts always compete alike
        if config.statistic == "win_count" and not config.normalize:
            self._recorded = {m: strongest(own).down.to(own[0].down.device) for m, own in parts.items()}
        self._halves: tuple[dict[str, LayerStatistics], dict[str, LayerStatistics]] = ({}, {})
        self._half = self._halves[0]
        self._waiting: dict[str, list[_Found]] = {}  # by layer: counted together, which is faster
        self._told: dict[str, tuple[weakref.ref, _Found]] = {}  # by layer: last input and its result

    def begin(self, number: int, categories: Sequence[str] | None) -> None:
        """Let odd rounds be one half and even rounds the other."""
        if self._half is not self._halves[number % 2]:
            self._count_waiting()
            self._half = self._halves[number % 2]

    def add(self, module: str, inputs: Tensor) -> None:
        """Measure how active the experts are in this layer; a prompt stays the same at every timestep."""
        last, found = self._told.get(module, (None, None))
        if last is None or last() is not inputs:
            found = self._found(module, tokens_of(inputs))
            self._told[module] = (weakref.ref(inputs), found)
        self._waiting.setdefault(module, []).append(found)
        if len(self._waiting[module]) == _AT_ONCE:
            self._count(module)

    def _found(self, module: str, tokens: Tensor) -> _Found:
        """Return the activities and what recounts wins; rank neurons only where they are what is chosen."""
        active = activity(tokens, self._stacked[module])
        if not self._recorded:
            return active, None
        first = active.shape[2] if self._config.level == "output neuron" else self._parts[module][0].d_out
        return active, InputRecord(second_moments(tokens, self._recorded[module]), active[..., first:])

    def _count_waiting(self) -> None:
        for module in list(self._waiting):
            self._count(module)

    def _count(self, module: str) -> None:
        activities, records = zip(*self._waiting.pop(module), strict=True)
        new = LayerStatistics.of(torch.cat(activities, dim=1))
        if self._recorded:
            self._records.setdefault(module, []).append(InputRecord.join(records))
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

    def layers(self) -> dict[str, LayerActivity | RecordedActivity]:
        """Return the counters of both halves together, and the record."""
        self._count_waiting()
        first, second = self._halves
        whole = {m: first[m].plus(second[m]) if m in second else first[m] for m in self._parts}
        found = {module: self._split(module, counts.to("cpu")) for module, counts in whole.items()}
        if not self._recorded:
            return found
        joined = {module: InputRecord.join(self._records.pop(module)) for module in found}
        return {module: RecordedActivity(*layer, joined[module]) for module, layer in found.items()}

    @staticmethod
    def layer_of(groups: Sequence[Sequence[Tensor]]) -> LayerActivity | RecordedActivity:
        """Return what `layers` gave for one layer, from its tensors."""
        counters = [LayerStatistics(wins.long(), *others) for wins, *others in groups[:2]]
        if len(groups) == len(counters):
            return LayerActivity(*counters)
        return RecordedActivity(*counters, InputRecord(*groups[2]))

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
