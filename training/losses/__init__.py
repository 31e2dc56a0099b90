"""Preference losses. To add one: write its file, then add its line here.

The order is the order of the widget: append, never reorder, never rename (saved graphs store the name).
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from .alignguard import alignguard_loss
from .anchored import anchored_loss

TERMS = ("winner_anchor", "preservation")  # what the trainer can compute beside the pair errors


@dataclass(frozen=True)
class Objective:
    """What training optimises.

    Attributes:
        loss: f(errors: PairErrors, *, beta) -> loss per pair, shape (batch,).
        beta: the default strength, in the convention of `alignguard_loss` (factor 1/2 inside).
        terms: the extra terms it needs, out of `TERMS`; the trainer computes no other.
        reference: where it comes from.
        merge_ready: whether `row_dropout` applies, which prepares an expert for Co-Merge.
    """

    loss: Callable[..., Tensor]
    beta: float
    terms: tuple[str, ...]
    reference: str
    merge_ready: bool = False

    def __post_init__(self):
        unknown = set(self.terms) - set(TERMS)
        if unknown:
            raise ValueError(f"terms must be out of {', '.join(TERMS)}, got {', '.join(sorted(unknown))}.")


LOSSES: dict[str, Objective] = {
    "alignguard": Objective(alignguard_loss, 5000.0, (), "AlignGuard, arXiv:2412.10493"),
    "anchored": Objective(
        anchored_loss, 500.0, TERMS, "our own objective, see losses/anchored.py", merge_ready=True
    ),
}
