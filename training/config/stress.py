"""Options of pushing prompts along a concept."""

from dataclasses import dataclass

from .option import option, validate

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
