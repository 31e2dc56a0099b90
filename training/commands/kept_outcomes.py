"""What an attack has found so far, in a folder: numbers of prompts and counts, and nothing of how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..evaluation.attacks import Outcome, Remember, find_anew
from ..system.work_folder import RowLog, claim, locked, logged_rows

SETTINGS = "stress.json"
_Key = tuple[str, str, int]  # model, what is measured of it, number of the prompt or picture
_NAMES = ("model", "what", "number")


class KeptOutcomes:
    """Outcomes that a run which was killed need not find again.

    Args:
        log: where new ones are written; None keeps nothing.
        known: of earlier runs and of other processes.
    """

    def __init__(self, log: RowLog | None = None, known: Mapping[_Key, Outcome] | None = None) -> None:
        self._log, self._known = log, dict(known or {})

    def of(self, model: str, what: str, numbers: Sequence[int] | None = None) -> Remember:
        """Return what remembers the outcomes of one measurement.

        Args:
            model: names its weights.
            what: is measured of it.
            numbers: of what this process measures, among all; None where it is asked by these.
        """
        if self._log is None:
            return find_anew

        def remember(at: int, find: Callable[[], Outcome]) -> Outcome:
            key = (model, what, numbers[at] if numbers else at)
            if key not in self._known:
                self._known[key] = find()
                self._log.add({**dict(zip(_NAMES, key, strict=True)), **self._known[key]._asdict()})
            return self._known[key]

        return remember


@contextmanager
def kept_outcomes(folder: Path, settings: Mapping[str, Any], number: int) -> Iterator[KeptOutcomes]:
    """Open a folder of outcomes for one of the processes that share it.

    Args:
        folder: new, or one begun with the same settings.
        settings: what outcomes depend on besides the model and their number; plain values, never a prompt.
        number: of the process.

    Raises:
        ValueError: if the folder holds something else, or another run is using it.
    """
    claim(folder, settings, file=SETTINGS, holds="a stress test")
    with locked(folder, f"in_use-{number}.lock"), RowLog(folder, number) as log:
        rows = list(logged_rows(folder))
        known = {tuple(row[name] for name in _NAMES): Outcome(row["unsafe"], row["images"]) for row in rows}
        yield KeptOutcomes(log, known)
