"""Collect the statistics of `co_merge`: counters of each expert's activity per neuron, in two halves."""

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
from .members import Members, expert_size

_PASSES_AT_ONCE = 8  # forward passes whose activities are counted together, which is faster
_Measured = tuple[Tensor, InputRecord | None]  # activities of one forward pass, and its record


class ActivityCollector:
    """Evaluates all experts on the inputs of each layer during the pass; see `Collector`.

    Keeps three numbers per expert and neuron for each half of the inputs: about 100 MB for the attention
    layers of SDXL and seven experts. All statistics are of the experts at strength 1; they determine the
    statistics at other strengths, except for the wins, which need a record of each input, see `input_record`.
    """

    kind: ClassVar[str] = "activity"
    needs_categories: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ("statistic", "level", "normalize", "stop_agreement")

    def __init__(
        self,
        members: Members,
        parts: Mapping[str, Sequence[LowRank]],
        categories: Sequence[str] | None,
        config: MergeConfig,
    ) -> None:
        scales = [1 / (expert_size(expert) or 1.0) if config.normalize else 1.0 for expert, _ in members]
        self._parts = {
            module: [part.scaled(scale) for part, scale in zip(experts, scales, strict=True)]
            for module, experts in parts.items()
        }
        self._stacked = {module: Stacked.of(experts) for module, experts in self._parts.items()}
        self._config = config
        self._records: dict[str, list[InputRecord]] = {}
        self._recorded: dict[str, Tensor] = {}  # empty if no record is needed: normalised wins never change
        if config.statistic == "win_count" and not config.normalize:
            self._recorded = {
                module: strongest(experts).down.to(experts[0].down.device)
                for module, experts in parts.items()
            }
        self._halves: tuple[dict[str, LayerStatistics], dict[str, LayerStatistics]] = ({}, {})
        self._half = self._halves[0]
        self._waiting: dict[str, list[_Measured]] = {}  # by layer, to be counted
        self._last: dict[str, tuple[weakref.ref, _Measured]] = {}  # by layer: last input and its activities

    def begin(self, round_number: int, categories: Sequence[str] | None) -> None:
        """Assign even rounds to one half and odd rounds to the other."""
        if self._half is not self._halves[round_number % 2]:
            self._count_waiting()
            self._half = self._halves[round_number % 2]

    def add(self, module: str, inputs: Tensor) -> None:
        """Measure the activity of all experts in a layer; an unchanged input, as a prompt is, only once."""
        last_input, measured = self._last.get(module, (None, None))
        if last_input is None or last_input() is not inputs:
            measured = self._measure(module, tokens_of(inputs))
            self._last[module] = (weakref.ref(inputs), measured)
        self._waiting.setdefault(module, []).append(measured)
        if len(self._waiting[module]) == _PASSES_AT_ONCE:
            self._count(module)

    def agreement(self) -> float | None:
        """Return the share of choices that both halves make alike, each weighted by the norm of its row."""
        self._count_waiting()
        first, second = self._halves
        if not first or not second:
            return None
        alike = total = 0.0
        for module in self._parts:
            one, two, both = (
                choose(self._split(module, counters), self._config.statistic, self._config.level)
                for counters in (first[module], second[module], first[module].plus(second[module]))
            )
            weights = _norms(self._parts[module], both, self._config.level)
            alike += float(weights[one == two].sum())
            total += float(weights.sum())
        return alike / total if total else 1.0

    def layers(self) -> dict[str, LayerActivity | RecordedActivity]:
        """Return the counters over both halves, with the record if there is one."""
        self._count_waiting()
        first, second = self._halves
        whole = {m: first[m].plus(second[m]) if m in second else first[m] for m in self._parts}
        layers = {module: self._split(module, counters.to("cpu")) for module, counters in whole.items()}
        if not self._recorded:
            return layers
        records = {module: InputRecord.join(self._records.pop(module)) for module in layers}
        return {module: RecordedActivity(*layer, records[module]) for module, layer in layers.items()}

    @staticmethod
    def layer_of(groups: Sequence[Sequence[Tensor]]) -> LayerActivity | RecordedActivity:
        """Rebuild the statistics of one layer from their tensors."""
        counters = [LayerStatistics(wins.long(), total, peak) for wins, total, peak in groups[:2]]
        if len(groups) == len(counters):
            return LayerActivity(*counters)
        return RecordedActivity(*counters, InputRecord(*groups[2]))

    def _measure(self, module: str, tokens: Tensor) -> _Measured:
        """Return the activities, and a record of the tokens with rank neurons only if they are chosen."""
        activities = activity(tokens, self._stacked[module])
        if not self._recorded:
            return activities, None
        is_recorded = self._config.level != "output neuron"
        first_rank = self._parts[module][0].d_out if is_recorded else activities.shape[2]
        moments = second_moments(tokens, self._recorded[module])
        return activities, InputRecord(moments, activities[..., first_rank:])

    def _count_waiting(self) -> None:
        for module in list(self._waiting):
            self._count(module)

    def _count(self, module: str) -> None:
        activities, records = zip(*self._waiting.pop(module), strict=True)
        new = LayerStatistics.of(torch.cat(activities, dim=1))
        if self._recorded:
            self._records.setdefault(module, []).append(InputRecord.join(records))
        self._half[module] = self._half[module].plus(new) if module in self._half else new

    def _split(self, module: str, counters: LayerStatistics) -> LayerActivity:
        return LayerActivity.of(counters, self._parts[module][0].d_out)


def _norms(parts: Sequence[LowRank], winners: Tensor, level: str) -> Tensor:
    """Return the norm of the row, or of the rank component, that each winner would contribute; else 0."""
    if level == "rank neuron":
        norms = [part.up.norm(dim=0) * part.down.norm(dim=1) for part in parts]
        norms = [torch.nn.functional.pad(norm, (0, len(winners) - len(norm))) for norm in norms]
    else:  # the norm of row i of B A is that of B_i R^T, with A^T = Q R
        norms = [(part.up @ torch.linalg.qr(part.down.T).R.T).norm(dim=1) for part in parts]
    of_winner = torch.stack(norms).gather(0, winners.clamp(min=0)[None])[0]
    return of_winner.masked_fill(winners == NO_WINNER, 0.0)
