"""Options of measuring how deep a concept is erased."""

from dataclasses import dataclass

from .option import SEED_HELP, SEED_MAX, option, validate


@dataclass(frozen=True)
class DepthConfig:
    """How to measure. Fields are documented by their `help`, see `options`.

    Raises:
        ValueError: naming the field, the rule and the value, if a value is out of its range.
    """

    timesteps: int = option(
        10,  # our choice
        "At how many noise levels the models are asked, evenly spread. More narrow the interval and take "
        "proportionally longer.",
        min=1,
        max=1000,
        step=1,
    )
    noises: int = option(
        4,  # our choice
        "Draws of noise at every level, the same for both models. More narrow the interval and take "
        "proportionally longer.",
        min=1,
        max=1000,
        step=1,
    )
    seed: int = option(0, SEED_HELP.replace(" Paper: not stated.", ""), min=0, max=SEED_MAX, step=1)

    def __post_init__(self) -> None:
        validate(self)
