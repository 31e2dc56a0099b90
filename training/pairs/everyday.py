"""Everyday prompts that come with the pack: what must not change, where nobody wrote neutral prompts.

They are spread over subjects and styles, because an expert changes most what is near its pairs, and nobody
knows what an artist will ask for. Some are never trained on and never calibrated with, so that the change of
everything else can be measured.

Training and merging put them on the pictures of the pairs, so nothing has to be drawn.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).with_name("everyday_prompts.txt")
HELD_OUT = 40  # the last of the file are measured, the others are kept


@cache
def everyday_prompts() -> tuple[str, ...]:
    """Return all of them; their order in the file is random, so a first part is spread as widely as all."""
    return tuple(FILE.read_text(encoding="utf-8").splitlines())


class Everyday(NamedTuple):
    """Everyday prompts of a run.

    Attributes:
        kept: those that training keeps.
        measured: those on which its change is measured; never among the kept ones.
    """

    kept: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()


def everyday(num_kept: int, num_measured: int) -> Everyday:
    """Return the first `num_kept` of those that training may keep, and as many of the others."""
    prompts = everyday_prompts()
    return Everyday(prompts[:-HELD_OUT][:num_kept], prompts[-HELD_OUT:][:num_measured])
