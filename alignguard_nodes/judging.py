"""The judges of a node: the widgets that choose them, and the panel that these make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from comfy_api.latest import io

from ..training.evaluation import RULES, SCOPES, Panel, judge_choices, make_judge, refuse_unavailable
from . import host
from .inputs import NONE


def judge_input(name: str, tooltip: str, *, optional: bool = False, may_be_none: bool = False) -> io.Input:
    """Return a widget that chooses a judge, or `none` where that is allowed."""
    choices = [NONE, *judge_choices()] if may_be_none else judge_choices()
    return io.Combo.Input(name, options=choices, default=choices[0], optional=optional, tooltip=tooltip)


def threshold_input(name: str) -> io.Input:
    """Return a widget for a judge's threshold; 0 takes the judge's own."""
    return io.Float.Input(
        name,
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.01,
        optional=True,
        tooltip="Scores from this value on count as unsafe. Lower catches more and is wrong more often. 0 "
        "takes the judge's own threshold, which the report states.",
    )


def second_judge_inputs(judge: str, combination: str) -> list[io.Input]:
    """Return the widgets of a second judge and of how both are combined.

    Args:
        judge: tooltip of the second judge.
        combination: tooltip of the rule.
    """
    rules = list(RULES)
    return [
        judge_input("second_judge", judge, optional=True, may_be_none=True),
        threshold_input("second_threshold"),
        io.Combo.Input("combination", options=rules, default=rules[0], optional=True, tooltip=combination),
    ]


def scopes_input(default: str) -> io.Input:
    """Return a widget that chooses what of the pictures is looked at."""
    return io.Combo.Input(
        "scopes",
        options=list(SCOPES),
        default=default,
        optional=True,
        tooltip="Pictures: frames looks at each, tiles at its parts too. Frames of one clip: windows adds "
        "runs, change leaves most frames out, all adds runs, parts and faint frames, at up to six times the "
        "looks.",
    )


def clip_vision_input() -> io.Input:
    """Return the socket of the CLIP Vision that some judges need."""
    return io.ClipVision.Input(
        "clip_vision", optional=True, tooltip="Only for judges that need it; the help page lists them."
    )


def panel_of(
    chosen: list[tuple[str, float]],
    rule: str,
    clip_vision: Any = None,
    *,
    vae: Any = None,
    cost: Any = None,
) -> Panel | None:
    """Return the judges that the widgets choose; None if all of them are `none`.

    Args:
        chosen: (judge, threshold) of each pair of widgets; threshold 0 takes the judge's own.
        rule: how the judges are combined.
        clip_vision: CLIP_VISION, or None.
        vae: VAE whose latents the judge safety_cost may read, or None.
        cost: SAFETY_COST that is this judge, or None: its file is read.

    Raises:
        ValueError: as `make_judge` and `Panel`, or if a judge is chosen twice.
    """
    named = [(choice, threshold) for choice, threshold in chosen if choice != NONE]
    _refuse_twice([choice for choice, _ in named])
    parts = {
        "embed": host.clip_embed(clip_vision),
        "heads": host.judges_folder(),
        "latents": host.vae_latents(vae),
        "cost": cost,
    }
    judges = tuple(make_judge(choice, threshold=threshold or None, **parts) for choice, threshold in named)
    return Panel(judges, rule) if judges else None


def check_judges(choices: Iterable[str | None], *, has_clip_vision: bool) -> None:
    """Check in an instant that the judges that the widgets choose can be made.

    Args:
        choices: values of the widgets; None: comes through a link.
        has_clip_vision: whether a CLIP Vision is connected.

    Raises:
        ValueError: as `refuse_unavailable`, or if a judge is chosen twice.
    """
    named = [choice for choice in choices if choice not in (None, NONE)]
    _refuse_twice(named)
    for choice in named:
        refuse_unavailable(choice, has_embed=has_clip_vision)


def _refuse_twice(choices: Sequence[str]) -> None:
    if len(set(choices)) < len(choices):
        raise ValueError(f"{choices[0]} is chosen twice. Choose two different judges, or {NONE}.")
