"""Options of writing the safe half of prompts."""

from dataclasses import dataclass

from .option import option, validate


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
