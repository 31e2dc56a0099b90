"""Prompts as plain text, one a line: from a file, or from a text box."""

from typing import NamedTuple

from ..hard_rules import joins_minor_and_sexual


class PromptList(NamedTuple):
    """The prompts of a text in order, and how many lines the hard rule dropped."""

    prompts: tuple[str, ...]
    num_dropped: int


def parse_prompts(text: str) -> PromptList:
    """Split a text into prompts; blank lines are passed over, what the hard rule forbids is dropped.

    Raises:
        ValueError: if no prompt is left.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    prompts = tuple(line for line in lines if not joins_minor_and_sexual((), line))
    if not prompts:
        raise ValueError(
            f"there is no prompt to use: {len(lines)} lines hold text, {len(lines)} were dropped by the rule "
            "on minors. Write one prompt a line."
        )
    return PromptList(prompts, len(lines) - len(prompts))
