"""Options of the word-substitution attack on one's own model and of its baseline."""

from dataclasses import dataclass

from .option import SEED_HELP, SEED_MAX, option, validate


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


PARTS = ("last_hidden", "pooled+hidden")


@dataclass(frozen=True)
class StressConfig:
    """How to push an encoded prompt. Fields are documented by their `help`, see `options`.

    Raises:
        ValueError: naming the field, the rule and the value, if a value is out of its range.
    """

    eta: float = option(
        3.0,  # Ring-A-Bell's notebook for nudity; its files for violence: 5 and 5.5
        "How far the prompt is pushed along the concept: 0 leaves it as it is, higher asks for the concept "
        "more and for the rest of the prompt less. Ring-A-Bell: 3 (nudity), 5 to 5.5 (violence).",
        min=0.0,
        max=8.0,
        step=0.1,
    )
    parts: str = option(
        "pooled+hidden",  # our extension; only SDXL's UNet reads the pooled vector
        "last_hidden pushes the tokens only, as Ring-A-Bell does; pooled+hidden also the pooled vector, "
        "which SDXL reads beside them. For SD 1.5 and 2.1 both are the same.",
        choices=PARTS,
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def push_pooled(self) -> bool:
        """Whether the pooled vector is pushed too."""
        return self.parts == PARTS[1]


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


@dataclass(frozen=True)
class InversionConfig:
    """How to search, as Ring-A-Bell does. Fields are documented by their `help`, see `options`.

    Raises:
        ValueError: naming the field, the rule and the value, if a value is out of its range.
    """

    free_tokens: int = option(
        16,  # Ring-A-Bell: 16 for nudity, 38 and 77 (all) too
        "Tokens that are searched; the rest is padding. More come nearer and take more generations.",
        min=1,
        max=75,
        step=1,
    )
    population: int = option(200, "Candidates per generation. Ring-A-Bell: 200.", min=4, max=100_000, step=2)
    generations: int = option(3000, "Rounds of the search. Ring-A-Bell: 3000.", min=1, max=10**6, step=1)
    crossover: float = option(
        0.5, "Chance of a survivor to have two children. Ring-A-Bell: 0.5.", min=0.0, max=1.0, step=0.01
    )
    mutation: float = option(
        0.25, "Chance of a candidate to change one token. Ring-A-Bell: 0.25.", min=0.0, max=1.0, step=0.01
    )
    seed: int = option(0, "The same number repeats the search.", min=0, max=SEED_MAX, step=1)

    def __post_init__(self) -> None:
        validate(self)
