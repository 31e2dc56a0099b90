"""Options of measuring a model: the benchmark, erasure depth, and the attacks on one's own model.

`EvaluateConfig` draws a set of prompts and judges the images. `DepthConfig` draws nothing and asks the UNet.
`StressConfig`, `InversionConfig` and `AttackConfig` test whether safety holds when the prompt is changed: by
a direction added to its encoding, by tokens that come near that encoding, and by rewording.
"""

from dataclasses import dataclass

from .option import SEED_MAX, option, validate


@dataclass(frozen=True)
class EvaluateConfig:
    """How to draw the images of a benchmark; each field is documented by its `help`, see `options`.

    Raises:
        ValueError: if a value breaks the rule of its field; the message names the field, rule and value.
    """

    per_prompt: int = option(
        1,  # AlignGuard: 1; I2P's own protocol: 10
        "Images of each prompt, each from different noise. More make the rate of each prompt steadier and "
        "take proportionally longer. AlignGuard: 1, I2P: 10.",
        min=1,
        max=1000,
        step=1,
    )
    steps: int = option(
        50,  # AlignGuard, inference.py
        "Sampling steps per image, the same for every model. More is proportionally slower. AlignGuard: 50.",
        min=1,
        max=1000,
        step=1,
    )
    cfg: float = option(
        7.5,  # AlignGuard, inference.py
        "How closely images follow their prompts, the same for every model. Higher shows more of what a "
        "prompt asks for, unsafe content included. AlignGuard: 7.5.",
        min=0.0,
        max=100.0,
        step=0.5,
    )
    seed: int = option(
        0,
        "Determines the noise of prompts whose file names no seed; the same number draws the same images.",
        min=0,
        max=SEED_MAX,
        step=1,
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class DepthConfig:
    """How to measure erasure depth; each field is documented by its `help`, see `options`.

    Raises:
        ValueError: if a value breaks the rule of its field; the message names the field, rule and value.
    """

    timesteps: int = option(
        10,  # our choice
        "Noise levels at which both models are run, evenly spread. More narrows the interval and takes "
        "proportionally longer.",
        min=1,
        max=1000,
        step=1,
    )
    noises: int = option(
        4,  # our choice
        "Draws of noise at each level, the same for both models. More narrows the interval and takes "
        "proportionally longer.",
        min=1,
        max=1000,
        step=1,
    )
    seed: int = option(
        0,
        "Another number gives another, equally valid result; the same number repeats it.",
        min=0,
        max=SEED_MAX,
        step=1,
    )

    def __post_init__(self) -> None:
        validate(self)


PARTS = ("last_hidden", "pooled+hidden")


@dataclass(frozen=True)
class StressConfig:
    """How to push an encoded prompt along a concept; each field is documented by its `help`, see `options`.

    Raises:
        ValueError: if a value breaks the rule of its field; the message names the field, rule and value.
    """

    eta: float = option(
        3.0,  # Ring-A-Bell's notebook for nudity; its files for violence: 5 and 5.5
        "How far the prompt is pushed along the concept. Higher asks for more of the concept and less of the "
        "prompt; 0 changes nothing. Ring-A-Bell: 3 (nudity), 5 to 5.5 (violence).",
        min=0.0,
        max=8.0,
        step=0.1,
    )
    parts: str = option(
        "pooled+hidden",  # our extension; only SDXL's UNet reads the pooled vector
        "last_hidden pushes only the tokens, as Ring-A-Bell does. pooled+hidden also pushes the pooled "
        "vector, which SDXL reads too. For SD 1.5 and 2.1 both are the same.",
        choices=PARTS,
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def push_pooled(self) -> bool:
        """Whether the pooled vector is pushed too."""
        return self.parts == PARTS[1]


@dataclass(frozen=True)
class InversionConfig:
    """How to search for tokens, as Ring-A-Bell does; each field is documented by its `help`, see `options`.

    Raises:
        ValueError: if a value breaks the rule of its field; the message names the field, rule and value.
    """

    free_tokens: int = option(
        16,  # Ring-A-Bell: 16 for nudity, 38 and 77 (all) too
        "Tokens that are searched; the rest is padding. More can come closer and need more generations. "
        "Ring-A-Bell: 16 (nudity).",
        min=1,
        max=75,
        step=1,
    )
    population: int = option(
        200,
        "Candidates per generation. More search more widely and take proportionally longer. Ring-A-Bell: "
        "200.",
        min=4,
        max=100_000,
        step=2,
    )
    generations: int = option(
        3000,
        "Rounds of the search. More come closer and take proportionally longer. Ring-A-Bell: 3000.",
        min=1,
        max=10**6,
        step=1,
    )
    crossover: float = option(
        0.5,
        "Probability that a survivor has two children. Higher mixes candidates more. Ring-A-Bell: 0.5.",
        min=0.0,
        max=1.0,
        step=0.01,
    )
    mutation: float = option(
        0.25,
        "Probability that a candidate changes one token. Higher explores more. Ring-A-Bell: 0.25.",
        min=0.0,
        max=1.0,
        step=0.01,
    )
    seed: int = option(0, "The same number repeats the search.", min=0, max=SEED_MAX, step=1)
    replay: str = option(
        "encoding",  # the stronger attack: nothing of the find is lost
        "encoding draws with the encoding that the search found. text decodes the tokens to text and "
        "tokenises it again, which may give other tokens. Ring-A-Bell: text.",
        choices=("encoding", "text"),
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class AttackConfig:
    """How to search for rewordings, as DiffZOO does; each field is documented by its `help`, see `options`.

    Raises:
        ValueError: if a value breaks the rule of its field; the message names the field, rule and value.
    """

    directions: int = option(
        16,  # DiffZOO's P
        "Random directions per gradient estimate. More makes it less noisy and draws proportionally more "
        "images. DiffZOO: 16.",
        min=1,
        max=10_000,
        step=1,
    )
    samples: int = option(
        12,  # DiffZOO's K
        "Rewordings drawn at each end of a direction. More makes the estimate less noisy and draws "
        "proportionally more images. DiffZOO: 12.",
        min=1,
        max=10_000,
        step=1,
    )
    rounds: int = option(
        5,  # DiffZOO's S
        "Steps along the estimated gradient. More searches longer and draws proportionally more images. "
        "DiffZOO: 5.",
        min=1,
        max=10_000,
        step=1,
    )
    validations: int = option(
        8,  # DiffZOO's T
        "Rewordings tried after each step. More has more chances and draws more images. DiffZOO: 8.",
        min=1,
        max=10_000,
        step=1,
    )
    radius: float = option(
        0.5,  # our choice: DiffZOO's 1e-5 leaves nearly all rewordings the same at both ends
        "Distance of both ends of a direction from its middle, in a range of -1 to 1. Higher makes the ends "
        "differ more and the gradient less exact. DiffZOO: 0.00001.",
        min=0.01,
        max=1.0,
        step=0.01,
    )
    learning_rate: float = option(
        0.3,  # our choice: DiffZOO's 0.05 moves a probability by an eighth in its five steps
        "How far a step may move each choice, in a range of -1 to 1. Higher is faster and less stable. "
        "DiffZOO's code: 0.05.",
        min=0.001,
        max=2.0,
        step=0.001,
    )
    seed: int = option(
        0,
        "Determines the rewordings and the noise of the images; the same number repeats the measurement.",
        min=0,
        max=SEED_MAX,
        step=1,
    )

    def __post_init__(self) -> None:
        validate(self)

    @property
    def budget(self) -> int:
        """Most images drawn for one prompt."""
        return self.rounds * (2 * self.directions * self.samples + self.validations)
