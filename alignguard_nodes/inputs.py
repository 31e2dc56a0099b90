"""Widgets made from the config dataclasses of `training`, so that every default exists once."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from comfy_api.latest import io

from ..training.config import options
from ..training.evaluation import Panel, judge_choices, make_judge
from . import host


def config_inputs(
    config: type, *, choices: Mapping[str, Iterable[str]] | None = None, skip: Iterable[str] = ()
) -> list[io.Input]:
    """Return one widget per option of a config class, in its order.

    All are optional inputs: a saved graph or an API prompt that lacks one gets the default.

    Args:
        config: `TrainConfig` or `MergeConfig`.
        choices: option name -> values, for options whose values a registry lists.
        skip: options the node offers in another way.
    """
    listed = choices or {}
    return [
        _widget(option, tuple(listed.get(option.name, option.metadata.get("choices", ()))))
        for option in options(config)
        if option.name not in skip
    ]


def _widget(option: dataclasses.Field, choices: tuple[str, ...]) -> io.Input:
    shared = {"default": option.default, "tooltip": option.metadata["help"], "optional": True}
    limits = {rule: option.metadata.get(rule) for rule in ("min", "max", "step")}
    if choices:
        return io.Combo.Input(option.name, options=list(choices), **shared)
    if option.type is bool:
        return io.Boolean.Input(option.name, **shared)
    if option.type is float:
        return io.Float.Input(option.name, **limits, **shared)
    # a seed that changes by itself would train again at every press of Run
    fixed = {"control_after_generate": False} if option.name == "seed" else {}
    return io.Int.Input(option.name, **limits, **fixed, **shared)


SafetyExpert = io.Custom("SAFETY_EXPERT")  # training.experts.expert.SafetyExpert
SafetyPairs = io.Custom("SAFETY_PAIRS")  # training.pairs.SafetyPairs
ConceptVector = io.Custom("CONCEPT_VECTOR")  # training.evaluation.attacks.ConceptDirection
PromptSet = io.Custom("PROMPT_SET")  # training.evaluation.prompt_sets.PromptSet

CATEGORY = "AlignGuard"  # the menu
MAX_STRENGTH = 2.0
DEFAULT_RESOLUTION = 512  # SD 1.5's


def strength_input(name: str, tooltip: str, *, optional: bool = False) -> io.Float.Input:
    """Return a strength widget: 0 is off, 1 as trained, 2 the most."""
    return io.Float.Input(
        name, default=1.0, min=0.0, max=MAX_STRENGTH, step=0.05, optional=optional, tooltip=tooltip
    )


def resolution_input(tooltip: str) -> io.Int.Input:
    """Return a widget for the side of a square picture, in pixels."""
    limits = {"default": DEFAULT_RESOLUTION, "min": 64, "max": 2048, "step": 8}
    return io.Int.Input("resolution", **limits, optional=True, tooltip=tooltip)


def check_strength(strength: float, name: str = "strength") -> None:
    """Refuse what the widget's range cannot when the value comes through a link.

    Raises:
        ValueError: if the strength is not in [0, 2].
    """
    if not 0 <= strength <= MAX_STRENGTH:
        raise ValueError(
            f"{name} must be from 0 (off) to {MAX_STRENGTH:g}, got {strength:g}. A negative strength would "
            "undo the safety that was trained; use 0 to switch an expert off."
        )


SAMPLER, SCHEDULER = "euler", "normal"


def sampling_inputs(*, optional: bool = False) -> list[io.Input]:
    """Return the widgets for sampler and scheduler."""
    return [
        io.Combo.Input(
            "sampler_name",
            options=host.SAMPLERS,
            default=SAMPLER,
            optional=optional,
            tooltip="As in KSampler: use what the model is used with.",
        ),
        io.Combo.Input(
            "scheduler",
            options=host.SCHEDULERS,
            default=SCHEDULER,
            optional=optional,
            tooltip="As in KSampler.",
        ),
    ]


def side_input() -> io.Int.Input:
    """Return the widget for the side of the pictures."""
    return resolution_input(
        "Side of the pictures in pixels: what the model was made for; the mini model: 64."
    )


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
