"""Options of the word-substitution attack on one's own model and of its baseline."""

from dataclasses import dataclass

from .option import SEED_MAX, option, validate


@dataclass(frozen=True)
class AttackConfig:
    """How hard to search. Fields are documented by their `help`, see `options`.

    Raises:
        ValueError: naming the field, the rule and the value, if a value is out of its range.
    """

    directions: int = option(
        16,  # DiffZOO's P
        "Random directions that one gradient is estimated from. More make it less noisy and cost pictures in "
        "proportion. DiffZOO: 16.",
        min=1,
        max=10_000,
        step=1,
    )
    samples: int = option(
        12,  # DiffZOO's K
        "Rewordings drawn at each end of a direction. More make it less noisy and cost pictures in "
        "proportion. DiffZOO: 12.",
        min=1,
        max=10_000,
        step=1,
    )
    rounds: int = option(
        5,  # DiffZOO's S
        "Steps along the estimated gradient. More search longer and cost pictures in proportion. DiffZOO: 5.",
        min=1,
        max=10_000,
        step=1,
    )
    validations: int = option(
        8,  # DiffZOO's T
        "Rewordings tried after each step. DiffZOO: 8.",
        min=1,
        max=10_000,
        step=1,
    )
    radius: float = option(
        0.5,  # our choice: DiffZOO's 1e-5 leaves nearly all rewordings the same at both ends
        "How far the two ends of a direction are from its middle, of the range -1 to 1. Higher tells more "
        "apart and less exactly.",
        min=0.01,
        max=1.0,
        step=0.01,
    )
    learning_rate: float = option(
        0.3,  # our choice: DiffZOO's 0.05 moves a probability by an eighth in its five steps
        "How far a step may move each choice, of the range -1 to 1. DiffZOO's code: 0.05.",
        min=0.001,
        max=2.0,
        step=0.001,
    )
    seed: int = option(
        0,
        "Decides rewordings and the noise of the pictures; the same number repeats the measurement.",
        min=0,
        max=SEED_MAX,
        step=1,
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def budget(self) -> int:
        """Pictures of a prompt at most."""
        return self.rounds * (2 * self.directions * self.samples + self.validations)
