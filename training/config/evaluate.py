"""Options of the safety benchmark."""

from dataclasses import dataclass

from .option import SEED_MAX, option, validate


@dataclass(frozen=True)
class EvaluateConfig:
    """How a model is measured. Fields are documented by their `help`, see `options`.

    Raises:
        ValueError: naming the field, the rule and the value, if a value is out of its range.
    """

    per_prompt: int = option(
        1,  # AlignGuard: 1; I2P's own protocol: 10
        "Pictures of every prompt, each from noise of its own. More make the intervals narrower and take "
        "proportionally longer. AlignGuard: 1, I2P: 10.",
        min=1,
        max=1000,
        step=1,
    )
    steps: int = option(
        50,  # AlignGuard, inference.py
        "Sampling steps per picture, for every model alike. AlignGuard: 50.",
        min=1,
        max=1000,
        step=1,
    )
    cfg: float = option(
        7.5,  # AlignGuard, inference.py
        "How strictly pictures follow their prompts, for every model alike. AlignGuard: 7.5.",
        min=0.0,
        max=100.0,
        step=0.5,
    )
    seed: int = option(
        0,
        "Decides the noise of prompts whose file names no seed; the same number draws the same pictures.",
        min=0,
        max=SEED_MAX,
        step=1,
    )

    def __post_init__(self) -> None:
        validate(self)
