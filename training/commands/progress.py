"""Progress and messages for people, on stderr; stdout is for the answer alone."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tqdm import tqdm

_LOG_FILE_INTERVAL_S = 30  # a bar redrawn more often would fill a log file


class ProgressBar:
    """A progress bar that can be handed to the library as any of its `on_progress`.

    Args:
        what: name of the task, shown before the bar.
        shown: False makes it silent.
    """

    def __init__(self, what: str, *, shown: bool = True) -> None:
        interval_s = 0.1 if sys.stderr.isatty() else _LOG_FILE_INTERVAL_S
        self._bar = tqdm(desc=what, file=sys.stderr, mininterval=interval_s, disable=not shown)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, done: int, total: int, figures: Mapping[str, float] | None = None) -> None:
        """Show how far the task is, and of the figures the loss."""
        self._bar.total = total
        if figures is not None:
            self._bar.set_postfix(loss=f"{figures['loss']:.4f}", refresh=False)
        self._bar.update(done - self._bar.n)

    def stage(self, what: str, done: int, total: int) -> None:
        """Show how far a stage of the task is; a new name starts the bar anew."""
        if not (self._bar.desc or "").startswith(what):
            self._bar.reset(total)
            self._bar.set_description(what)
        self(done, total)


@contextmanager
def messages_on_stderr(logger_name: str) -> Iterator[None]:
    """Show a logger's messages on stderr, above a running bar, while the context lasts."""
    logger, handler = logging.getLogger(logger_name), _AboveTheBar()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _AboveTheBar(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)
