"""What TensorBoard shows of a run, written where its package is installed; it is never needed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import TrainConfig
from ..losses import LOSSES
from .state import EVENTS

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


log = logging.getLogger(__name__)

NAMES = {"margin": "rewards/margins", "implicit_accuracy": "rewards/accuracies"}  # as trl names them
HELD_OUT = "validation_"  # before the figures on held-out pairs, which trl calls eval_


class EventFile:
    """The figures of a run, under the names that users of trl know.

    Args:
        writer: of TensorBoard.
        scale: what a margin is multiplied by to be the argument of the sigmoid; trl's margins are that.
    """

    def __init__(self, writer: SummaryWriter, scale: float) -> None:
        self._writer: SummaryWriter | None = writer
        self._scale = scale

    def write(self, figures: Mapping[str, float]) -> None:
        """Add the figures of a step, as in `metrics.jsonl`."""
        for name, value in figures.items():
            if name != "step":
                scaled = value * self._scale if name.endswith("margin") else value
                self._do("add_scalar", _tag(name), scaled, int(figures["step"]))

    def close(self) -> None:
        """Write what is left."""
        self._do("close")

    def _do(self, method: str, *arguments: Any) -> None:
        """Call the writer; what the disk cannot take is a warning, and the end of the file."""
        if self._writer is None:
            return
        try:
            getattr(self._writer, method)(*arguments)
        except OSError as error:
            log.warning("no more is written for TensorBoard: %s", error)
            self._writer = None


def open_event_file(folder: Path, config: TrainConfig, *, done: int) -> EventFile | None:
    """Return the file to write to, None where TensorBoard is not installed or cannot be loaded.

    Args:
        folder: of the run.
        config: options of the run, resolved.
        done: steps behind the run; what an earlier part of it wrote of later ones is hidden.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # late: it is optional, and slow to import
    except ImportError:
        return None
    except Exception as error:  # a protobuf or NumPy it was not made for: TypeError, AttributeError
        log.warning("nothing is written for TensorBoard, which cannot be loaded: %s", error)
        return None
    scale = config.beta / 2 if LOSSES[config.objective].beta_halved else config.beta
    try:
        return EventFile(SummaryWriter(str(folder / EVENTS), purge_step=done + 1 if done else None), scale)
    except OSError as error:
        log.warning("nothing is written for TensorBoard: %s", error)
        return None


def _tag(name: str) -> str:
    held_out = name.startswith(HELD_OUT)
    plain = name.removeprefix(HELD_OUT)
    return ("eval_" if held_out else "") + NAMES.get(plain, plain)
