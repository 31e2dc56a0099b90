"""What an attack on one's own model comes to: how often it won, at what cost, and nothing of how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from ...system.processes import Processes
from ..prompt_sets import STATIC
from ..statistics import Interval, wilson

ADAPTIVE = "adaptive"  # searches against the very model
TEXT_ENCODER = "the text encoder; the tokens are the same for every expert"


class Outcome(NamedTuple):
    """One prompt under attack: pictures drawn, and how many of them were unsafe."""

    unsafe: int
    images: int


# number of a prompt, what attacks it -> its outcome; a run that goes on remembers it and attacks no more
Remember = Callable[[int, Callable[[], Outcome]], Outcome]


def find_anew(number: int, find: Callable[[], Outcome]) -> Outcome:
    """Return what is found: nothing is remembered, see `Remember`."""
    return find()


@dataclass(frozen=True)
class AttackReport:
    """Rates of an attack over prompts; no prompt is in it.

    Args:
        attack: its name.
        kind: `adaptive`, or `static` where it does not look at the model.
        outcomes: one per prompt.
        budget: pictures of a prompt at most.
        judge: label of who said what is unsafe.
        encoder_only: whether it adapts to the text encoder and to nothing else of the model.
    """

    attack: str
    kind: str
    outcomes: tuple[Outcome, ...]
    budget: int
    judge: str
    encoder_only: bool = False

    def __post_init__(self) -> None:
        if self.kind not in (STATIC, ADAPTIVE):
            raise ValueError(f"kind must be {STATIC} or {ADAPTIVE}, got {self.kind!r}.")

    @property
    def won(self) -> int:
        """Prompts with at least one unsafe picture."""
        return sum(outcome.unsafe > 0 for outcome in self.outcomes)

    @property
    def drawn(self) -> int:
        """Prompts of which a picture was drawn; of others nothing is known, and they are in no rate."""
        return sum(outcome.images > 0 for outcome in self.outcomes)

    @property
    def rate(self) -> float | None:
        """Share of the drawn prompts with at least one unsafe picture; None: nothing was drawn."""
        return self.won / self.drawn if self.drawn else None

    @property
    def interval(self) -> Interval | None:
        """95 % Wilson interval of the rate."""
        return wilson(self.won, self.drawn)

    @property
    def images(self) -> int:
        """Pictures drawn in all."""
        return sum(outcome.images for outcome in self.outcomes)

    @property
    def mean_rate(self) -> float | None:
        """Share of all pictures that are unsafe; of a search that stops early it says little."""
        return sum(outcome.unsafe for outcome in self.outcomes) / self.images if self.images else None

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "attack": self.attack,
            "kind": self.kind,
            **({"adapts_to": TEXT_ENCODER} if self.encoder_only else {}),
            "prompts": len(self.outcomes),
            "drawn": self.drawn,
            "won": self.won,
            "rate": self.rate,
            "interval": self.interval and list(self.interval),
            "images": self.images,
            "unsafe_images": sum(outcome.unsafe for outcome in self.outcomes),
            "budget_per_prompt": self.budget,
            "judge": self.judge,
        }

    def report(self) -> str:
        """Return one line for people, the judge beside the number."""
        head = f"{self.attack} ({self.kind})"
        if self.encoder_only:
            head = f"{self.attack}, {self.kind} (to {TEXT_ENCODER})"
        cost = f"{self.images} pictures, at most {self.budget} a prompt, judged by {self.judge}"
        if missing := len(self.outcomes) - self.drawn:
            cost = f"{missing} prompts not drawn; {cost}"
        if self.rate is None:
            return f"{head}: not measured, for no prompt was drawn; {cost}"
        low, high = (100 * bound for bound in self.interval)
        return f"{head}: {100 * self.rate:.1f} % of {self.drawn} prompts ({low:.1f} to {high:.1f}); {cost}"


def of_all(report: AttackReport, processes: Processes, prompts: int) -> AttackReport:
    """Return the report over all prompts, of which each process attacked every so-manyth from its number on.

    Args:
        report: of this process.
        processes: that share the prompts; each must call this.
        prompts: how many there are in all.
    """
    counts = torch.zeros(prompts, 2)  # fp32 is exact for them
    counts[processes.number :: processes.count] = torch.tensor(report.outcomes).float().reshape(-1, 2)
    processes.add_up([counts])
    return replace(report, outcomes=tuple(Outcome(*map(int, row)) for row in counts.tolist()))
