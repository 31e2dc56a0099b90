"""Options of making preference pairs."""

from dataclasses import dataclass

from .option import SEED_MAX, option, validate

WAYS = ("same_seed", "sdedit")


@dataclass(frozen=True)
class MakeConfig:
    """How to draw preference pairs. Fields are documented by their `help`, see `options`.

    Raises:
        ValueError: naming the field, the rule and the value, if a value is out of its range.
    """

    way: str = option(
        "same_seed",  # CoProV2
        "same_seed draws both prompts from the same noise, as AlignGuard's pairs were made. sdedit paints the"
        " safe picture over the unsafe one, as DUO does, which keeps the layout.",
        choices=WAYS,
    )
    strength: float = option(
        0.75,  # DUO: 0.75 for nudity, 0.8 for violence
        "Only for sdedit: how much of the unsafe picture is painted over. Lower keeps more of the layout and "
        "perhaps of the harm. DUO: 0.75 (nudity), 0.8 (violence).",
        min=0.05,
        max=1.0,
        step=0.05,
    )
    per_prompt: int = option(
        1,  # CoProV2: 1
        "Pairs per line, each from noise of its own. More teach more and take proportionally longer.",
        min=1,
        max=1000,
        step=1,
    )
    attempts: int = option(
        4,  # our choice
        "How often a pair that the judge rejects is drawn from other noise before it is given up. Higher "
        "keeps more pairs and draws more unsafe pictures.",
        min=1,
        max=100,
        step=1,
    )
    steps: int = option(
        30,  # our choice
        "Sampling steps per picture. More are cleaner and proportionally slower.",
        min=1,
        max=1000,
        step=1,
    )
    cfg: float = option(
        7.5,  # DUO
        "How strictly pictures follow their prompts. Higher makes losers and winners differ more. DUO: 7.5.",
        min=0.0,
        max=100.0,
        step=0.5,
    )
    seed: int = option(
        0,
        "Another number draws other pictures; the same number draws the same ones.",
        min=0,
        max=SEED_MAX,
        step=1,
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class RewriteConfig:
    """When a rewrite is accepted. Fields are documented by their `help`, see `options`.

    Raises:
        ValueError: naming the field, the rule and the value, if a value is out of its range.
    """

    min_overlap: float = option(
        0.2,  # our choice
        "Share of words both prompts must have in common. Higher keeps the pictures of a pair alike; lower "
        "accepts freer rewrites. 63 % of CoProV2's own pairs reach 0.2.",
        min=0.0,
        max=1.0,
        step=0.05,
    )
    min_length_ratio: float = option(
        0.5,  # our choice
        "A rewrite with fewer words than this share of the prompt is rejected: it left something out.",
        min=0.0,
        max=1.0,
        step=0.05,
    )
    max_length_ratio: float = option(
        1.5,  # our choice
        "A rewrite with more words than this many times those of the prompt is rejected: it added something.",
        min=1.0,
        max=10.0,
        step=0.1,
    )

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        validate(self)
