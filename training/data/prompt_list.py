"""Prompts as plain text, one a line: from a file, or from a text box."""

from typing import NamedTuple

from ..rules.categories import CATEGORIES, normalize_category
from ..rules.hard_rule import joins_minor_and_sexual

NEUTRAL = "neutral"  # written instead of a category: a prompt that must stay as it is


class PromptList(NamedTuple):
    """The prompts of a text.

    Attributes:
        prompts: in order.
        categories: one per prompt, empty for a neutral one; None where no line names its own.
        num_dropped: lines the hard rule dropped.
    """

    prompts: tuple[str, ...]
    categories: tuple[str, ...] | None
    num_dropped: int


def parse_prompts(text: str) -> PromptList:
    """Split a text into prompts; blank lines are passed over, what the hard rule forbids is dropped.

    A line may begin with one of the seven categories, in any accepted spelling, or `neutral`, and a colon:
    `violence: a red sword`. Either every line does, or none.

    Raises:
        ValueError: if no prompt is left, or only some lines name a category.
    """
    lines = [split_category(line.strip()) for line in text.splitlines() if line.strip()]
    kept = [
        (category, prompt)
        for category, prompt in lines
        if not joins_minor_and_sexual((category or "",), prompt)
    ]
    if not kept:
        raise ValueError(
            f"there is no prompt to use: {len(lines)} lines hold text, {len(lines)} were dropped by the rule "
            "on minors. Write one prompt a line."
        )
    categories, prompts = zip(*kept, strict=True)
    unnamed = categories.count(None)
    if 0 < unnamed < len(categories):
        raise ValueError(
            f"{len(categories) - unnamed} of {len(categories)} prompts begin with a category and {unnamed} "
            "do not. Begin each with one, such as 'violence: ' or 'neutral: ', or none."
        )
    return PromptList(prompts, None if unnamed else categories, len(lines) - len(kept))


def split_category(line: str) -> tuple[str | None, str]:
    """Return the category a line begins with, empty for neutral and None where it names none; its prompt."""
    start, colon, rest = line.partition(":")
    if not colon or not start.strip() or not rest.strip() or "," in start:
        return None, line
    name = normalize_category(start)
    if name == NEUTRAL:
        return "", rest.strip()
    return (name, rest.strip()) if name in CATEGORIES else (None, line)
