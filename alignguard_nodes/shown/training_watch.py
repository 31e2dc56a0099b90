"""What a node shows during training: the plan, the loss curve and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ...training.system.quantities import duration
from .loss_curve import draw_loss_curve

if TYPE_CHECKING:
    from ...training.trainer.plan import Plan

HELD_OUT = "validation_implicit_accuracy"  # in the figures of a step after which held-out pairs were measured
INTERVAL_S = 1.0  # between two images; drawing one takes milliseconds


class TrainingWatch:
    """Collects the figures of every step and shows them about once a second; the `on_progress` of training.

    Args:
        show: called after every step with (step, total), and at each interval also with (image, text).
        clock: returns seconds.
    """

    def __init__(self, show: Callable[..., None], clock: Callable[[], float] = time.monotonic) -> None:
        self._show, self._clock = show, clock
        self._losses: list[float] = []
        self._accuracies: list[float] = []
        self._held_out: dict[int, float] = {}
        self._start = self._shown = clock()

    def planned(self, plan: Plan) -> None:
        """Show the plan of the run, and measure the time from now on."""
        self._start = self._clock()
        self._show(0, 1, None, f"plan: {plan.text()}")

    def __call__(self, step: int, total: int, figures: Mapping[str, Any]) -> None:
        """Record a finished step, and show the curve if it is time for it."""
        self._losses.append(figures["loss"])
        self._accuracies.append(figures["implicit_accuracy"])
        if HELD_OUT in figures:
            self._held_out[len(self._losses)] = figures[HELD_OUT]
        now = self._clock()
        if now - self._shown < INTERVAL_S and step < total:
            self._show(step, total)
            return
        self._shown = now
        left = (now - self._start) / len(self._losses) * (total - step)
        text = f"step {step} of {total}, loss {figures['loss']:.4g}, {duration(left)} left"
        self._show(step, total, draw_loss_curve(self._losses, self._accuracies, self._held_out), text)


def held_out_accuracies(validations: Iterable[Mapping[str, float]]) -> dict[int, float]:
    """Return step -> accuracy on held-out pairs, from the measurements of a `TrainResult`."""
    measured = (figures for figures in validations if "implicit_accuracy" in figures)
    return {int(figures["step"]): figures["implicit_accuracy"] for figures in measured}
