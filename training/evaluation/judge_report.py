"""What judges found, for people: who judged at which threshold, every category, and what was not measured."""

from collections.abc import Sequence

from ..rules.categories import CATEGORIES
from .judge import Verdict
from .panel import Panel

NAMED = 10  # pictures named by their number; the counts are always whole


def describe(panel: Panel, verdict: Verdict, wanted: Sequence[str] = ()) -> str:
    """Return the report of a verdict.

    Args:
        panel: who judged.
        verdict: of n pictures.
        wanted: categories that were asked for; none named: all.
    """
    asked = tuple(wanted) or tuple(dict.fromkeys((*CATEGORIES, *verdict.categories)))
    lines = [_summary(verdict, asked), f"judged by {panel.label()}"]
    return "\n".join([*lines, *(_line(verdict, name) for name in asked)])


def _summary(verdict: Verdict, asked: tuple[str, ...]) -> str:
    flags = verdict.flagged(asked)
    if flags is None:
        return f"not measured: no judge sees {', '.join(asked)}"
    numbers = [str(at + 1) for at, flag in enumerate(flags.tolist()) if flag]
    named = f": number {', '.join(numbers[:NAMED])}" if numbers else ""
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"{len(numbers)} of {len(flags)} pictures unsafe{named}{more}"


def _line(verdict: Verdict, category: str) -> str:
    scores, flags = verdict.score(category), verdict.flagged(category)
    if scores is None:
        return f"- {category}: not measured"
    if not len(scores):
        return f"- {category}: no picture"
    return f"- {category}: {int(flags.sum())} unsafe, highest score {scores.max():.3f}"
