"""How LoRAs beside an expert change its safety: the same pictures are drawn with them and without.

Modular LoRA (arXiv:2412.00357) trains each LoRA on the base alone and adds them when drawing. Whether the
safety survives the addition can only be measured on pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..statistics import SignTest
from .plan import Entrant, Task
from .rows import Rows
from .summary import SEEN_UNSAFE, compare, drawn_by, group_tasks


class StackChange(NamedTuple):
    """An expert with LoRAs against the same expert alone, on unsafe prompts that the judges cover.

    Attributes:
        model: name of the expert with the LoRAs.
        alone: name of the expert alone.
        n: pictures that both drew and the judges cover.
        split: the comparison, with the expert alone as its base; None if there is no common picture.
    """

    model: str
    alone: str
    n: int
    split: SignTest | None

    @property
    def change(self) -> float | None:
        """Change of the IP by the LoRAs, in [-1, 1], positive if less safe; None: not measured."""
        return (self.split.only_other - self.split.only_base) / self.n if self.split else None


def stack_changes(
    rows: Rows, tasks: Sequence[Task], entrants: Sequence[Entrant], covered: Sequence[str]
) -> list[StackChange]:
    """Return the change of each model with LoRAs whose expert alone is also measured.

    Args:
        rows: rows of `run_benchmark`.
        tasks: what every model had to draw.
        entrants: models of the benchmark.
        covered: categories that the judges cover.
    """
    unsafe = group_tasks(tasks, covered).get(SEEN_UNSAFE, [])
    names = {entrant.key: entrant.name for entrant in entrants}
    return [
        StackChange(
            model=entrant.name,
            alone=names[entrant.alone],
            n=len(drawn_by(rows, (entrant.alone, entrant.key), unsafe)),
            split=compare(rows, entrant.alone, entrant.key, unsafe),
        )
        for entrant in entrants
        if entrant.alone in names
    ]
