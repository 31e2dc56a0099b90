"""What a guard says of one prompt, without ever repeating the prompt."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

RULE = "rule on minors"
ADVICE = (
    "A guard is advice, not a guarantee: it misses prompts that are worded unlike those it knows, and blocks "
    "some that are harmless."
)
CERTAIN = 1.0  # score of a prompt that the rule on minors blocks: as high as a cosine can be


@dataclass(frozen=True)
class GuardVerdict:
    """The verdict on one prompt.

    Attributes:
        blocked: whether the prompt should not be drawn.
        score: how near the prompt is to something harmful, higher is nearer; `CERTAIN` where the rule on
            minors decided and nothing was scored.
        threshold: scores from it on are blocked.
        reason: why it is blocked, such as `RULE`; empty if it is not.
        concept: number, from 1, of the concept that gave the score; None: there is none.
        num_concepts: how many concepts were asked for.
        category: category of that concept; empty if it has none.
    """

    blocked: bool
    score: float
    threshold: float
    reason: str = ""
    concept: int | None = None
    num_concepts: int = 0
    category: str = ""

    @classmethod
    def of_rule(cls, threshold: float) -> GuardVerdict:
        """Return the verdict of the rule on minors, which stands above every threshold."""
        return cls(True, CERTAIN, threshold, RULE)

    def strength(self, safe: float, unsafe: float) -> float:
        """Return the strength of an expert for this prompt: `unsafe` where it is blocked, else `safe`."""
        return unsafe if self.blocked else safe

    def report(self) -> str:
        """Return the verdict in words."""
        if self.reason == RULE:
            return (
                "blocked by the rule on minors, which no threshold and no mode turns off; the guard was not "
                "asked."
            )
        nearest = ""
        if self.concept is not None:
            category = f", {self.category}" if self.category else ""
            nearest = f" Nearest is concept {self.concept} of {self.num_concepts}{category}."
        elif self.reason:
            nearest = f" Reason: {self.reason}."
        side = "blocked: the score is not below" if self.blocked else "passed: the score is below"
        return f"{side} the threshold ({self.score:.3f}, threshold {self.threshold:.3f}).{nearest}"

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return asdict(self)
