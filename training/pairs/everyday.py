"""Everyday prompts that come with the pack: training keeps what they draw, where nobody wrote a file.

They are spread over subjects and styles, because an expert changes most what is near its pairs, and nobody
knows what an artist will ask for. Some are never trained on, so that the change of everything else can be
measured.
"""

from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("everyday_prompts.txt")
HELD_OUT = 40  # the last of the file are measured, the others are kept


@cache
def everyday_prompts() -> tuple[str, ...]:
    """Return all of them; their order in the file is random, so a first part is spread as widely as all."""
    return tuple(FILE.read_text(encoding="utf-8").splitlines())


def kept_prompts(count: int) -> tuple[str, ...]:
    """Return the first `count` of those that training may keep."""
    return everyday_prompts()[:-HELD_OUT][:count]


def measured_prompts() -> tuple[str, ...]:
    """Return those on which the change is measured; training never keeps them."""
    return everyday_prompts()[-HELD_OUT:]
