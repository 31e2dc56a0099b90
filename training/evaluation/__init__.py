"""Judges of pictures. To add one: write its file with a `KIND`, then add its line here.

The order is the order of the widget: append, never reorder, never rename (saved graphs store the name).
"""

from . import mini, open_nsfw
from .judge import Embed, Judge, JudgeKind, Verdict, safety_of
from .panel import RULES, Panel

EVALUATORS: dict[str, JudgeKind] = {
    "open_nsfw": open_nsfw.KIND,
    "mini": mini.KIND,
}


def make_judge(
    name: str, *, preset: str = "", threshold: float | None = None, embed: Embed | None = None
) -> Judge:
    """Make a judge ready to look.

    Args:
        name: a key of `EVALUATORS`.
        preset: one of its presets; empty is its first.
        threshold: in (0, 1]; None is the preset's own.
        embed: pictures (n, 3, h, w) in [0, 1] to CLIP image embeddings (n, width), for judges that need it.

    Raises:
        ValueError: if there is no such judge, preset or threshold, its package is not installed, or it
            needs an `embed`.
    """
    if name not in EVALUATORS:
        raise ValueError(f"judge must be one of {', '.join(EVALUATORS)}, got {name!r}.")
    kind = EVALUATORS[name]
    preset = preset or kind.presets[0]
    if preset not in kind.presets:
        raise ValueError(f"the judge {name} has the presets {', '.join(kind.presets)}, got {preset!r}.")
    if kind.needs_clip_vision and embed is None:
        raise ValueError(f"the judge {name} works on CLIP Vision. Connect one to clip_vision.")
    return kind.make(preset, embed).at(threshold)


__all__ = [
    "EVALUATORS",
    "RULES",
    "Judge",
    "JudgeKind",
    "Panel",
    "Verdict",
    "make_judge",
    "safety_of",
]
