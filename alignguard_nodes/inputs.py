"""Inputs that several nodes share: socket types, widgets, and the values that nodes make of widgets.

The options of a task (`TrainConfig`, `MergeConfig`, ...) become widgets through `config_inputs`, so that
every default, range and tooltip stands once, in `training.config`; `from_widgets` turns the values back
into the config. The other widgets occur in several nodes and are declared here.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from comfy_api.latest import io

from ..training.config import MAX_STRENGTH, options
from . import host
from .files import Places

CATEGORY = "AlignGuard"  # the menu
DEFAULT_RESOLUTION = 512  # SD 1.5's
SAMPLER, SCHEDULER = "euler", "normal"
NONE = "none"  # the choice of no judge, guard or file
ABSENT = object()  # default of a socket in `validate_inputs`: not connected; None: connected
MOST_SOCKETS = 64  # of one kind, where the host grows them; it allows 100

SafetyExpert = io.Custom("SAFETY_EXPERT")  # training.experts.expert.SafetyExpert
SafetyPairs = io.Custom("SAFETY_PAIRS")  # training.pairs.SafetyPairs
ConceptVector = io.Custom("CONCEPT_VECTOR")  # training.evaluation.attacks.ConceptDirection
PromptSet = io.Custom("PROMPT_SET")  # training.evaluation.prompt_sets.PromptSet
SafetyCost = io.Custom("SAFETY_COST")  # training.evaluation.cost_model.CostModel
PromptGuard = io.Custom("PROMPT_GUARD")  # training.guards.Guard


def pair_places() -> Places:
    """Return where widgets name pairs and prompts."""
    return Places(host.private_folder("pairs"), host.input_folder())


def config_inputs(
    config: type,
    *,
    choices: Mapping[str, Iterable[str]] | None = None,
    skip: Iterable[str] = (),
    before: Mapping[str, Sequence[io.Input]] | None = None,
) -> list[io.Input]:
    """Return one widget per option of a config class, in its order.

    All are optional inputs: a saved graph or an API prompt that lacks one gets the default.

    Args:
        config: such as `TrainConfig`.
        choices: option name -> values, for options whose values a registry lists.
        skip: options that the node offers in another way.
        before: option name -> inputs of the node itself that stand before that option.
    """
    listed, node_inputs, widgets = choices or {}, before or {}, []
    for option in options(config):
        widgets += node_inputs.get(option.name, ())
        if option.name not in skip:
            widgets.append(
                _widget(option, tuple(listed.get(option.name, option.metadata.get("choices", ()))))
            )
    return widgets


def _widget(option: dataclasses.Field, choices: tuple[str, ...]) -> io.Input:
    shared = {"default": option.default, "tooltip": option.metadata["help"], "optional": True}
    limits = {rule: option.metadata.get(rule) for rule in ("min", "max", "step")}
    if choices:
        return io.Combo.Input(option.name, options=list(choices), **shared)
    if option.type is bool:
        return io.Boolean.Input(option.name, **shared)
    if option.type is float:
        return io.Float.Input(option.name, **limits, **shared)
    # a seed that changes after each run would train again at every press of Run
    fixed = {"control_after_generate": False} if option.name == "seed" else {}
    return io.Int.Input(option.name, **limits, **fixed, **shared)


def from_widgets(widgets: Mapping[str, Any], *classes: type) -> list[Any]:
    """Return an instance of each dataclass, filled with the widgets that are its fields.

    Args:
        widgets: input name -> value, as the host passes them; one that is missing has its default.
        classes: dataclasses whose field names do not overlap.
    """
    return [
        cls(**{field.name: widgets[field.name] for field in options(cls) if field.name in widgets})
        for cls in classes
    ]


def checked(*checks: tuple[Callable[[Any], Any], Any]) -> bool | str:
    """Return what `validate_inputs` answers: True, or the sentence of the first check that fails.

    The host then checks nothing else of the inputs that `validate_inputs` names, so a check must cover their
    ranges too.

    Args:
        checks: (check, value). A value of None is not checked: it comes through a link, or is absent.
    """
    for check, value in checks:
        try:
            if value is not None:
                check(value)
        except (OSError, ValueError) as error:  # OSError: such as a name that is too long
            return str(error)
    return True


class Slot(NamedTuple):
    """What is connected to a numbered socket.

    Attributes:
        value: the object.
        strength: value of its strength widget; 1 for a socket that has none.
        strength_name: name of that widget, for errors.
    """

    value: Any
    strength: float = 1.0
    strength_name: str = "strength"


def connected(slots: Mapping[str, Any], name: str, numbers: Iterable[int]) -> Iterator[Slot]:
    """Yield what is connected to the sockets `<name>_<number>`, and then to those that the host grew.

    Args:
        slots: input id -> value, as the host passes them.
        name: such as `expert`; the group of grown sockets is then `more_experts`, see `more_inputs`.
        numbers: of the sockets that every host has.
    """
    for number in numbers:
        if slots.get(f"{name}_{number}") is not None:
            widget = f"strength_{number}"
            yield Slot(slots[f"{name}_{number}"], slots.get(widget, 1.0), widget)
    grown = slots.get(f"more_{name}s") or {}
    yield from (Slot(value) for value in grown.values() if value is not None)


def more_inputs(name: str, numbers: Sequence[int], tooltip: str) -> list[io.Input]:
    """Return the sockets for experts beyond `numbers`, on hosts that can grow sockets."""
    socket = SafetyExpert.Input(name, optional=True, tooltip=tooltip)
    beyond = range(numbers[-1] + 1, MOST_SOCKETS + 1)
    return host.more_sockets(
        f"more_{name}s", socket, [f"{name}_{number}" for number in beyond], f"{tooltip} At strength 1."
    )


def strength_input(name: str, tooltip: str, *, optional: bool = False) -> io.Float.Input:
    """Return a strength widget: 0 is off, 1 as trained, 2 the maximum."""
    return io.Float.Input(
        name, default=1.0, min=0.0, max=MAX_STRENGTH, step=0.05, optional=optional, tooltip=tooltip
    )


def check_strength(strength: float, name: str = "strength") -> None:
    """Refuse a strength out of range; the widget cannot do so when the value comes through a link.

    Raises:
        ValueError: if the strength is not in [0, 2].
    """
    if not 0 <= strength <= MAX_STRENGTH:
        raise ValueError(
            f"{name} must be from 0 (off) to {MAX_STRENGTH:g}, got {strength:g}. A negative strength would "
            "undo the safety that was trained; use 0 to switch an expert off."
        )


def resolution_input(tooltip: str) -> io.Int.Input:
    """Return a widget for the side of a square image, in pixels."""
    limits = {"default": DEFAULT_RESOLUTION, "min": 64, "max": 2048, "step": 8}
    return io.Int.Input("resolution", **limits, optional=True, tooltip=tooltip)


def side_input() -> io.Int.Input:
    """Return the resolution widget of nodes that draw images."""
    return resolution_input(
        "Side of the images in pixels. Use the size the model was trained for (mini model: 64); smaller is "
        "faster and less like what the model normally draws."
    )


def sampling_inputs(*, optional: bool = False) -> list[io.Input]:
    """Return the widgets for sampler and scheduler."""
    return [
        io.Combo.Input(
            "sampler_name",
            options=host.SAMPLERS,
            default=SAMPLER,
            optional=optional,
            tooltip="As in KSampler: choose the one you normally use with this model.",
        ),
        io.Combo.Input(
            "scheduler",
            options=host.SCHEDULERS,
            default=SCHEDULER,
            optional=optional,
            tooltip="As in KSampler: choose the one you normally use with this model.",
        ),
    ]
