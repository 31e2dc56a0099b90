"""The learning rate of every step, and the step that a run ends with.

Under `settle` the run chooses its own length: the rate stays as it is while the margin on held-out pairs
grows, and falls once it grows no more. What is measured decides, so the same options fit few pairs and many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..config import TrainConfig

# Our choice, all three. On the large mini world the margin of seven held-out pairs under a constant rate grew
# by over 5 % a measurement up to step 175 and by under 2 % from step 250 on, and what everyday prompts lost
# stayed level meanwhile.
GROWTH = 1.02  # the margin has settled when the largest of the last `WINDOW` is not this much larger
WINDOW = 2  # measurements; a single one may be low by chance
FALL = 1 / 3  # of the steps before it


class Fall(NamedTuple):
    """The steps in which the rate falls to zero, counted from 0: from `start` to just before `end`."""

    start: int
    end: int


def fall(config: TrainConfig, validations: Sequence[Mapping[str, float]]) -> Fall | None:
    """Return when the rate falls, as far as the measurements up to now tell; None: it never does.

    Measurements that are added later do not change a fall that has begun. Under `settle` it begins in time
    to end with the last of `config.steps` at the latest.

    Args:
        config: options of the run.
        validations: every measurement on held-out pairs, with its `step` and `margin`; may be empty.
    """
    if config.lr_schedule == "constant":
        return None
    if config.lr_schedule == "cosine":
        return Fall(0, config.steps)
    latest = round(config.steps / (1 + FALL))
    start = min(latest, _settled_step(validations) or latest)
    return Fall(start, config.steps if start == latest else start + math.ceil(start * FALL))


def _settled_step(validations: Sequence[Mapping[str, float]]) -> int | None:
    """Return the step of the first measurement at which the margin had settled; None: it still grows."""
    margins = [figures["margin"] for figures in validations if "margin" in figures]
    for number in range(WINDOW, len(margins)):
        newest = number + 1 - WINDOW
        before, recent = max(margins[:newest]), max(margins[newest : number + 1])
        if before > 0 and recent < GROWTH * before:
            return int(validations[number]["step"])
    return None


def learning_rate(config: TrainConfig, step: int, falling: Fall | None) -> float:
    """Return the learning rate of a step (from 0): a linear rise over `warmup_steps`, then the schedule.

    In the fall: rate * (1 + cos(pi * (step - start) / (end - start))) / 2 (Loshchilov and Hutter 2016,
    arXiv:1608.03983, eq. 5, without restarts). The rise and the fall multiply.

    Args:
        config: options of the run.
        step: to be taken.
        falling: see `fall`.
    """
    rate = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
    if falling is not None and step >= falling.start:
        rate *= (1 + math.cos(math.pi * (step - falling.start) / (falling.end - falling.start))) / 2
    return rate
