"""The widgets of a judge, and the judge they choose."""

from typing import Any

from comfy_api.latest import io

from ..training.evaluation import Panel, judge_choices, make_judge
from . import host

NONE = "none"


def judge_input(name: str, tooltip: str, *, optional: bool = False, may_be_none: bool = False) -> io.Input:
    """Return a widget that chooses a judge, or none where that is allowed."""
    choices = [NONE, *judge_choices()] if may_be_none else judge_choices()
    return io.Combo.Input(name, options=choices, default=choices[0], optional=optional, tooltip=tooltip)


def threshold_input(name: str) -> io.Input:
    """Return a widget for a threshold; 0 leaves the preset's own."""
    return io.Float.Input(
        name,
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.01,
        optional=True,
        tooltip="A score from here on is unsafe: lower catches more and is wrong more often. 0 takes the "
        "judge's own, which the report names.",
    )


def clip_vision_input() -> io.Input:
    """Return the socket of the CLIP Vision that some judges work on."""
    return io.ClipVision.Input(
        "clip_vision", optional=True, tooltip="Only for judges that work on it, see the help page."
    )


def panel_of(chosen: list[tuple[str, float]], rule: str, clip_vision: Any = None) -> Panel | None:
    """Return the judges that widgets choose; None if all of them are `none`.

    Args:
        chosen: (judge, threshold) from the widgets, threshold 0 for the judge's own.
        rule: how they are combined.
        clip_vision: CLIP_VISION, or None.

    Raises:
        ValueError: as `make_judge` and `Panel`, or if a judge is there twice.
    """
    named = [(choice, threshold) for choice, threshold in chosen if choice != NONE]
    if len({choice for choice, _ in named}) < len(named):
        raise ValueError(f"{named[0][0]} is chosen twice. Choose two different judges, or {NONE}.")
    parts = {"embed": host.clip_embed(clip_vision), "heads": host.judges_folder()}
    judges = tuple(make_judge(choice, threshold=threshold or None, **parts) for choice, threshold in named)
    return Panel(judges, rule) if judges else None
