"""The socket types of the pack, and the widgets that several nodes share."""

from comfy_api.latest import io

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
