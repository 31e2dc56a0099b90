"""The output of a command: its answer on stdout, and progress bars and log messages on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

if TYPE_CHECKING:
    from ..experts.expert import SafetyExpert
    from ..pairs import SafetyPairs

log = logging.getLogger(__name__)

_LOG_FILE_INTERVAL_S = 30  # redrawing the bar more often would fill a log file


class Answer(NamedTuple):
    """The result of a command: lines of text, and values that `json.dumps` accepts."""

    text: str
    facts: dict[str, Any]


def expert_facts(expert: SafetyExpert) -> dict[str, Any]:
    """Return an expert's properties and its metadata as plain values."""
    return {
        "name": expert.name,
        "categories": list(expert.categories),
        "family": expert.family,
        "text_width": expert.text_width,
        "layers": len(expert.layers),
        "rank": expert.rank,
        "left_out": dict(expert.left_out),
        "parameters": sum(layer.up.numel() + layer.down.numel() for layer in expert.layers.values()),
        "content_hash": expert.content_hash,
        "metadata": dict(expert.metadata),
    }


def read_pairs(path: Path, **options: Any) -> SafetyPairs:
    """Load pairs, and say on stderr which rows were dropped: for commands whose answer is about other things.

    Args:
        path: of the pairs.
        **options: of `load_pairs`.
    """
    from ..pairs import load_pairs  # late: it imports torch, and --help needs none

    pairs = load_pairs(path, **options)
    if pairs.report.num_dropped:
        log.info("%s: %s", path, pairs.report.text())
    return pairs


class ProgressBar:
    """A progress bar that serves as any `on_progress` of the library.

    Args:
        task: name of the task, shown before the bar.
        shown: False hides the bar.
    """

    def __init__(self, task: str, *, shown: bool = True) -> None:
        interval_s = 0.1 if sys.stderr.isatty() else _LOG_FILE_INTERVAL_S
        self._bar = tqdm(desc=task, file=sys.stderr, mininterval=interval_s, disable=not shown)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, done: int, total: int, figures: Mapping[str, float] | None = None) -> None:
        """Show the progress of the task, and the loss if there are metrics."""
        self._bar.total = total
        if figures is not None:
            self._bar.set_postfix(loss=f"{figures['loss']:.4f}", refresh=False)
        self._bar.update(done - self._bar.n)

    def stage(self, stage: str, done: int, total: int) -> None:
        """Show the progress of a stage of the task; a new name restarts the bar."""
        if not (self._bar.desc or "").startswith(stage):
            self._bar.reset(total)
            self._bar.set_description(stage)
        self(done, total)


@contextmanager
def messages_on_stderr(logger_name: str) -> Iterator[None]:
    """Show the messages of a logger on stderr, above a running bar, while the context lasts."""
    logger, handler = logging.getLogger(logger_name), _AboveTheBar()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _AboveTheBar(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)
