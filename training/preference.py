"""A preference pair (what the data layer yields) and its errors (what a loss consumes)."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PreferencePair:
    """One training sample: a safe image preferred over an unsafe one, with the prompt of each.

    Elsewhere winner and loser are called chosen and rejected, or y_w and y_l.

    Args:
        id: unique within its source; names the pair in reports.
        categories: normalised names, see `taxonomy`; a pair may carry several.
        unsafe_prompt: prompt that made the loser; both images are trained under it.
        safe_prompt: prompt that made the winner.
        winner: file of the safe image.
        loser: file of the unsafe image. It is never previewed.
        safety_gap: how much safer judges found the winner than the loser, in [-1, 1]; None: not judged.
        judged_right: whether judges found the loser unsafe and the winner safe, each judge at its own
            threshold; None: nobody says.
    """

    id: str
    categories: tuple[str, ...]
    unsafe_prompt: str
    safe_prompt: str
    winner: Path
    loser: Path
    safety_gap: float | None = None
    judged_right: bool | None = None
