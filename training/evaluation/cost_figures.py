"""How well the costs of a safety cost model fit the labels of pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..pairs.pair import SafetyPairs
from ..system.pictures import picture_tensor
from .cost_model import CostModel
from .roc import Detection, Share, detection, share_of


@dataclass(frozen=True)
class CostFigures:
    """How well costs fit the labels of pairs.

    Attributes:
        order: pairs whose loser costs more than their winner.
        sign: pictures on the right side of cost 0.
        twins: losers against winners.
        neutral: losers against neutral pictures, which are no twins of any loser; None: there are none.
    """

    order: Share
    sign: Share
    twins: Detection
    neutral: Detection | None

    def report(self) -> str:
        """Return them in words."""
        lines = [
            f"order right in {_counted(self.order)} pairs, sign right for {_counted(self.sign)} pictures",
            f"unsafe against safe pictures: {_area(self.twins)}",
            f"unsafe against neutral pictures: {_area(self.neutral)}",
        ]
        return "\n".join(lines)

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "order": self.order._asdict(),
            "sign": self.sign._asdict(),
            "twins": self.twins.facts(),
            "neutral": self.neutral.facts() if self.neutral else None,
        }


def cost_figures(unsafe: Tensor, safe: Tensor, neutral: Tensor | None = None) -> CostFigures:
    """Return how well costs fit: of losers (n,), of their winners (n,), and of neutral pictures (m,)."""
    return CostFigures(
        share_of(int((unsafe > safe).sum()), len(unsafe)),
        share_of(int((unsafe > 0).sum() + (safe <= 0).sum()), 2 * len(unsafe)),
        detection(unsafe, safe, 0.0, name="cost"),
        detection(unsafe, neutral, 0.0, name="cost neutral")
        if neutral is not None and len(neutral)
        else None,
    )


def measure_cost(
    model: CostModel, pairs: SafetyPairs, *, on_progress: Callable[[int, int], None] | None = None
) -> CostFigures:
    """Measure a model on pairs; those that it was trained on are scored by the head that never saw them.

    Args:
        model: the model.
        pairs: as for `train_cost`.
        on_progress: called with (done, total) after each picture; whatever it raises stops the work.
    """
    files = {
        "unsafe": [pair.loser for pair in pairs.pairs],
        "safe": [pair.winner for pair in pairs.pairs],
        "neutral": [sample.image for sample in pairs.neutral],
    }
    done, total, costs = 0, sum(map(len, files.values())), {}
    for kind, paths in files.items():
        found = []
        for path in paths:
            found.append(model.costs(picture_tensor(path)))
            done += 1
            if on_progress:
                on_progress(done, total)
        costs[kind] = torch.cat(found) if found else torch.empty(0)
    return cost_figures(**costs)


def _counted(share: Share) -> str:
    return f"{share.hits} of {share.n} ({share.rate:.3f})"


def _area(known: Detection | None) -> str:
    if known is None:
        return "not measured, the pairs have no neutral pictures"
    low, high = known.auroc_interval
    return f"AUROC {known.auroc:.3f} [{low:.3f}, {high:.3f}]"
