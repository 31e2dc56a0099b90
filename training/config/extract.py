"""Options of an extraction."""

from dataclasses import dataclass

from .option import option, validate


@dataclass(frozen=True)
class ExtractConfig:
    """How to turn the difference of two models into an expert. Fields are documented by their `help`.

    Raises:
        ValueError: naming the field, the rule and the value, if a value is out of its range.
    """

    rank: int = option(
        32,  # our choice: seven experts of the paper's rank 4 need 28
        "The most components kept of each layer's change. Higher is closer to the tuned model and makes a "
        "larger file; a LoRA that was merged into it comes out at its own rank. Paper: not stated.",
        min=1,
        max=512,
        step=1,
    )
    energy: float = option(
        1.0,  # our choice
        "Share of each layer's squared change after which no further component is kept. Lower makes a "
        "smaller file and drops the weakest parts; 1 keeps all up to rank. Paper: not stated.",
        min=0.01,
        max=1.0,
        step=0.01,
        positive=True,
    )

    def __post_init__(self) -> None:
        validate(self)
