"""Judges of pictures. To add one: write its file with a `KIND`, then add its line here.

The order is the order of the widget: append, never reorder, never rename (saved graphs store the name).
"""

from pathlib import Path

from .judge import Embed, Judge, JudgeKind, Parts, Verdict, safety_of
from .judges import mhsc, mini, nudenet, open_nsfw, q16
from .panel import RULES, Panel, describe
from .shown import blurred, hidden_pictures, scan_frames

EVALUATORS: dict[str, JudgeKind] = {
    "open_nsfw": open_nsfw.KIND,
    "mini": mini.KIND,
    "nudenet": nudenet.KIND,
    "q16": q16.KIND,
    "mhsc": mhsc.KIND,
}


def judge_choices() -> list[str]:
    """Return what `make_judge` takes: `name`, or `name:preset` where a judge has several presets."""
    return [
        f"{name}:{preset}" if len(kind.presets) > 1 else name
        for name, kind in EVALUATORS.items()
        for preset in kind.presets
    ]


def make_judge(
    choice: str,
    *,
    threshold: float | None = None,
    embed: Embed | None = None,
    heads: Path | None = None,
) -> Judge:
    """Make a judge ready to look.

    Args:
        choice: one of `judge_choices`; a name alone takes its first preset.
        threshold: in (0, 1]; None is the preset's own.
        embed: pictures (n, 3, h, w) in [0, 1] to CLIP image embeddings (n, width), for judges that need it.
        heads: folder of the weights that such judges have beside it.

    Raises:
        ValueError: if there is no such judge, preset or threshold, its package is not installed, or it
            lacks its embeddings or weights.
    """
    name, _, preset = choice.partition(":")
    if name not in EVALUATORS or (preset and preset not in EVALUATORS[name].presets):
        raise ValueError(f"judge must be one of {', '.join(judge_choices())}, got {choice!r}.")
    kind = EVALUATORS[name]
    if kind.needs_clip_vision and embed is None:
        raise ValueError(
            f"the judge {name} works on CLIP image embeddings. Connect a CLIP Vision to clip_vision; a "
            "command takes --clip-vision DIR."
        )
    return kind.make(preset or kind.presets[0], Parts(embed, heads)).at(threshold)


__all__ = [
    "EVALUATORS",
    "RULES",
    "Judge",
    "JudgeKind",
    "Panel",
    "Verdict",
    "blurred",
    "describe",
    "hidden_pictures",
    "judge_choices",
    "make_judge",
    "safety_of",
    "scan_frames",
]
