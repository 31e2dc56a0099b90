"""Merges that were finished earlier, found again by the content of everything that decides them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..config import MergeConfig
from ..experts.expert import SafetyExpert, load_expert, save_expert
from ..system.finished_runs import FinishedRuns
from .methods import needs_statistics

log = logging.getLogger(__name__)

KEPT = 8  # a merge of SDXL's attention layers at rank 128 takes about 1 GB in fp32


@dataclass(frozen=True)
class FinishedMerges:
    """Makes merges that take long, and gives those that are finished.

    Args:
        runs: where they are kept.
        config: of the merge.
        experts: with their strengths.
    """

    runs: FinishedRuns
    config: MergeConfig
    experts: Sequence[tuple[SafetyExpert, float]]

    @property
    def is_calibrated(self) -> bool:
        """Whether the merge runs the base model."""
        return needs_statistics(self.config.method, sum(strength > 0 for _, strength in self.experts))

    def merged(
        self, calibration: Mapping[str, Any] | None, merge: Callable[[], tuple[SafetyExpert, str]]
    ) -> tuple[SafetyExpert, str, bool]:
        """Return a merged expert and the text about it, and whether an earlier merge had made them.

        Args:
            calibration: everything that decides the calibration, as plain values; None: unknown, so the
                merge is made.
            merge: makes them.
        """
        if calibration is None or not (self.is_calibrated or self.config.output_rank):
            return *merge(), False
        key = self.runs.key(
            options=asdict(self.config),
            experts=[[*_facts(expert), strength] for expert, strength in self.experts],
            calibration=dict(calibration),
        )
        if earlier := self.runs.find(key):
            expert = replace(load_expert(earlier.file), name=earlier.values["name"])
            return expert, earlier.values["text"], True
        expert, text = merge()
        self._keep(key, expert, text)
        return expert, text, False

    def _keep(self, key: str, expert: SafetyExpert, text: str) -> None:
        try:
            file = self.runs.file(key, ".safetensors")
            file.unlink(missing_ok=True)  # of a run that broke off
            save_expert(expert, file)
        except OSError as error:
            log.warning("the merge could not be kept and may be repeated: %s", error)
        else:
            self.runs.add(key, file, {"name": expert.name, "text": text})


def _facts(expert: SafetyExpert) -> list[Any]:
    """Return what of a member is in the merged file."""
    return [expert.content_hash, expert.name, expert.categories, expert.family, dict(expert.metadata)]
