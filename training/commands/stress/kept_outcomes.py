"""Outcomes of attacks in a folder, so that an interrupted run continues: prompt numbers and counts only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...evaluation.attacks import Outcome, Remember, find_anew
from ...system.work_folder import RowLog, claim, locked, logged_rows

SETTINGS = "stress.json"
_Key = tuple[str, str, int]  # model, measurement, number of the prompt or image
_NAMES = ("model", "what", "number")


class KeptOutcomes:
    """Outcomes that need not be measured again.

    Args:
        log: receives new outcomes; None keeps nothing.
        earlier: outcomes of earlier runs and of other processes.
    """

    def __init__(self, log: RowLog | None = None, earlier: Mapping[_Key, Outcome] | None = None) -> None:
        self._log, self._outcomes = log, dict(earlier or {})

    def of(self, model: str, measurement: str, numbers: Sequence[int] | None = None) -> Remember:
        """Return the memory of one measurement.

        Args:
            model: identifies the weights of the model.
            measurement: name of what is measured of the model.
            numbers: position in the share of this process -> number among all; None if the memory is asked
                by the number itself.
        """
        if self._log is None:
            return find_anew

        def remember(position: int, find: Callable[[], Outcome]) -> Outcome:
            key = (model, measurement, position if numbers is None else numbers[position])
            if key not in self._outcomes:
                self._outcomes[key] = find()
                self._log.add({**dict(zip(_NAMES, key, strict=True)), **self._outcomes[key]._asdict()})
            return self._outcomes[key]

        return remember


@contextmanager
def kept_outcomes(folder: Path, settings: Mapping[str, Any], number: int) -> Iterator[KeptOutcomes]:
    """Open a folder of outcomes for one of the processes that share it.

    Args:
        folder: a new one, or one begun with the same settings.
        settings: what outcomes depend on besides the model and their number: plain values, never a prompt.
        number: of the process.

    Raises:
        ValueError: if the folder holds something else, or if another run is using it.
    """
    claim(folder, settings, file=SETTINGS, holds="a stress test")
    with locked(folder, f"in_use-{number}.lock"), RowLog(folder, number) as log:
        rows = list(logged_rows(folder))
        earlier = {tuple(row[name] for name in _NAMES): Outcome(row["unsafe"], row["images"]) for row in rows}
        yield KeptOutcomes(log, earlier)


def fingerprint(texts: Any) -> str:
    """Return a hash that tells texts, or tuples of them, apart without revealing them."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
