"""Options of searching tokens that encode to a point, on one's own model."""

from dataclasses import dataclass

from .option import SEED_MAX, option, validate


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
