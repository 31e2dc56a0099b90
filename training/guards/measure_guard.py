"""How well a guard tells unsafe prompts from their safe twins, and from prompts that are plainly harmless.

The prompts are static: chosen before the guard existed. What an attack that adapts to the guard achieves is
measured by `stress --guard`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ..evaluation.prompt_sets import STATIC
from ..evaluation.roc import Detection, Share, blocked_share, detection

if TYPE_CHECKING:
    from . import Guard
    from .concept_data import ConceptRow


class GuardResult(NamedTuple):
    """What a guard does with prompts that it was not trained on.

    Attributes:
        twins: unsafe prompts against their safe twins.
        harmless: unsafe prompts against harmless ones; None: there are none.
        per_category: category -> share of its unsafe prompts that is blocked.
    """

    twins: Detection
    harmless: Detection | None
    per_category: dict[str, Share]

    def report(self) -> str:
        """Return it in words."""
        harmless = self.harmless.line() if self.harmless else "not measured"
        lines = [f"static prompts, against safe twins: {self.twins.line()}", f"against harmless: {harmless}"]
        shares = (f"{name} {share.hits} of {share.n}" for name, share in self.per_category.items())
        return "\n".join([*lines, f"blocked by category: {', '.join(shares) or 'not measured'}"])

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "kind": STATIC,
            "twins": self.twins.facts(),
            "harmless": self.harmless.facts() if self.harmless else None,
            "per_category": {name: share._asdict() for name, share in self.per_category.items()},
        }


def measure_guard(
    guard: Guard,
    rows: Sequence[ConceptRow],
    harmless: Sequence[str],
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> GuardResult:
    """Ask a guard about every prompt, each different one once.

    Args:
        guard: the guard; its threshold decides what is blocked.
        rows: unsafe prompts and their safe twins.
        harmless: prompts that should pass.
        on_progress: called with (done, total); whatever it raises stops the measurement.
    """
    prompts = list(dict.fromkeys([*(text for row in rows for text in (row.unsafe, row.safe)), *harmless]))
    scores: dict[str, float] = {}
    for done, prompt in enumerate(prompts, start=1):
        scores[prompt] = guard.look(prompt).score
        on_progress(done, len(prompts))

    def of(texts: Sequence[str]) -> Tensor:
        return torch.tensor([scores[text] for text in texts], dtype=torch.float64)

    unsafe = of([row.unsafe for row in rows])
    categories = dict.fromkeys(row.category for row in rows if row.category)
    per_category = {
        name: blocked_share(of([row.unsafe for row in rows if row.category == name]), guard.threshold)
        for name in categories
    }
    return GuardResult(
        detection(unsafe, of([row.safe for row in rows]), guard.threshold, name="twins"),
        detection(unsafe, of(harmless), guard.threshold, name="harmless") if harmless else None,
        per_category,
    )
