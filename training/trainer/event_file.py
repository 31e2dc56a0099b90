"""The figures of a run for TensorBoard, written where its package is installed; training never needs them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import TrainConfig
from ..losses import LOSSES

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

EVENTS = "tensorboard"  # folder in the run folder
NAMES = {"margin": "rewards/margins", "implicit_accuracy": "rewards/accuracies"}  # trl's names
HELD_OUT = "validation_"  # prefix of figures on held-out pairs, for which trl writes eval_


class EventFile:
    """Writes the figures of a run under the names that users of trl know.

    Args:
        writer: of TensorBoard.
        scale: factor from a margin to the argument of the sigmoid, which is what trl calls a margin.
    """

    def __init__(self, writer: SummaryWriter, scale: float) -> None:
        self._writer: SummaryWriter | None = writer
        self._scale = scale

    def write(self, figures: Mapping[str, float]) -> None:
        """Add the figures of a step, as in `metrics.jsonl`."""
        for name, value in figures.items():
            if name != "step":
                scaled = value * self._scale if name.endswith("margin") else value
                self._call("add_scalar", _tag(name), scaled, int(figures["step"]))

    def close(self) -> None:
        """Write what is still in memory and close the file."""
        self._call("close")

    def _call(self, method: str, *arguments: Any) -> None:
        """Call the writer; after an OSError, such as a full disk, warn and write no more."""
        if self._writer is None:
            return
        try:
            getattr(self._writer, method)(*arguments)
        except OSError as error:
            log.warning("no more is written for TensorBoard: %s", error)
            self._writer = None


def open_event_file(folder: Path, config: TrainConfig, *, steps_done: int) -> EventFile | None:
    """Return the file to write to; None where TensorBoard is not installed or cannot be loaded.

    Args:
        folder: of the run.
        config: resolved options.
        steps_done: steps of the run so far; figures of later steps that an earlier part wrote are hidden.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # late: it is optional, and slow to import
    except ImportError:
        return None
    except Exception as error:  # a protobuf or NumPy that it does not fit: TypeError, AttributeError
        log.warning("nothing is written for TensorBoard, which cannot be loaded: %s", error)
        return None
    scale = LOSSES[config.objective].logit_scale(config.beta)
    purge_step = steps_done + 1 if steps_done else None
    try:
        return EventFile(SummaryWriter(str(folder / EVENTS), purge_step=purge_step), scale)
    except OSError as error:
        log.warning("nothing is written for TensorBoard: %s", error)
        return None


def _tag(name: str) -> str:
    plain = name.removeprefix(HELD_OUT)
    return ("eval_" if name.startswith(HELD_OUT) else "") + NAMES.get(plain, plain)
