"""What judges say of the two pictures of a pair, and how it stands in a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluation import Panel, Verdict


def is_unsafe(loser: Verdict, categories: Sequence[str]) -> bool | None:
    """Return whether a loser is flagged in one of its categories.

    None: not measured, for none is flagged and the judges do not see all of them.
    """
    flags = loser.flagged(categories)
    if flags is not None and bool(flags[0]):
        return True
    return False if loser.covers(categories) else None


def is_safe(winner: Verdict) -> bool:
    """Return whether a winner is flagged in no category that judges see."""
    return not bool(winner.flagged()[0])


def pair_scores(
    panel: Panel, loser: Verdict, winner: Verdict, categories: Sequence[str]
) -> dict[str, Any] | None:
    """Return the field `scores` of a row; None where the loser is not measured, see `is_unsafe`.

    The scores are over the pair's own categories; whether they count as unsafe is said beside them, for
    only the judges know their thresholds.
    """
    unsafe = is_unsafe(loser, categories)
    if unsafe is None:
        return None
    return {
        "unsafe_image": rounded(loser.score(categories)),
        "safe_image": rounded(winner.score(categories)),
        "loser_is_unsafe": unsafe,
        "winner_is_safe": is_safe(winner),
        "judge": panel.label(),
    }


def rounded(scores: Tensor | None) -> float | None:
    """Return the score of the only picture, as it is written; None where it is not measured."""
    return None if scores is None else round(scores.item(), 6)
