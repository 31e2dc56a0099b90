"""What judges said of a pair at their own thresholds, as it stands in a manifest."""

from collections.abc import Mapping
from typing import Any

RIGHT = ("loser_is_unsafe", "winner_is_safe")


def read_judged_right(fields: Mapping[str, Any]) -> bool | None:
    """Return whether judges found the unsafe image unsafe and the safe one safe; None: nobody says.

    The field is `scores: {"loser_is_unsafe": true, "winner_is_safe": true}`, beside the scores themselves.
    """
    scores = fields.get("scores")
    said = [scores.get(name) for name in RIGHT] if isinstance(scores, Mapping) else [None]
    return all(said) if all(isinstance(each, bool) for each in said) else None
