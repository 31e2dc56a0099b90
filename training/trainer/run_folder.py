"""What a run writes during training: the resume state, the metrics of every step, and TensorBoard's file."""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ..models.hashes import weights_hash
from ..system.processes import Processes
from ..system.work_folder import locked
from .event_file import EVENTS, EventFile, open_event_file
from .identity import refuse_discord, refuse_other_run, run_identity
from .progress import Progress
from .run import Run
from .state import State, load_newest, save_state, write_atomically

log = logging.getLogger(__name__)

SAVE_AFTER_S = 600.0  # a killed run loses at most this much
EXPERT = "expert.safetensors"  # the finished expert, in the run folder


@dataclass(frozen=True)
class Storage:
    """Where a run is stored.

    Attributes:
        run_dir: folder of `state/` and `metrics.jsonl`; None: nothing is written.
        resume: continue from the newest state there, if there is one. Otherwise, what an earlier run left
            there is renamed.
        base_hash: of the weights of the base model, by which a resumed run recognises it; computed from the
            UNet if it is empty.
    """

    run_dir: Path | None = None
    resume: bool = False
    base_hash: str = ""

    def for_base(self, unet: nn.Module) -> Storage:
        """Return the storage with the hash of a UNet without an adapter, if it is needed and missing."""
        return replace(self, base_hash=weights_hash(unet)) if self.run_dir and not self.base_hash else self


class RunFolder:
    """Writes what belongs in the run folder; only the first process does, and only if there is a folder.

    After a write that fails with an OSError, such as on a full disk, the log has a warning and the run goes
    on.

    Args:
        storage: where the run is stored.
        processes: of the run.
    """

    def __init__(self, storage: Storage, processes: Processes) -> None:
        self._path, self._storage = storage.run_dir, storage
        self._writes = storage.run_dir is not None and processes.is_first
        self._identity: Mapping[str, Any] = {}
        self._events: EventFile | None = None
        self._saved_s = time.monotonic()  # of the last save, at first of the start
        self._lacks_metrics = False

    def saved_beta(self) -> float | None:
        """Return the beta of the run to continue; None where there is none."""
        state = load_newest(self._path / "state") if self._storage.resume else None
        return state and state.values.get("settings", {}).get("beta")

    def open(self, run: Run) -> State | None:
        """Prepare the folder for a run.

        Args:
            run: before its first step, with resolved options.

        Returns:
            The state to continue from; None: the run starts from the beginning.

        Raises:
            ValueError: if the state belongs to another run, has more steps than the run is to have, or
                differs from the state that another process found.
        """
        if self._path is None:
            return None
        self._identity = run_identity(run, self._storage.base_hash)
        with run.processes.first_goes_first():  # the folder is on a disk that all processes see
            state = load_newest(self._path / "state") if self._storage.resume else None
            if self._writes:
                self._prepare(state)
        refuse_discord(run, self._path, self._identity, state)
        if self._writes:
            done = state.step if state else 0
            self._events = open_event_file(self._path, run.config, steps_done=done)
        if state and state.step > run.config.steps:
            raise ValueError(
                f"the run in {self._path} has {state.step} steps done, more than the {run.config.steps} "
                "asked for. Ask for more steps, or choose a new run folder."
            )
        return state

    def _prepare(self, state: State | None) -> None:
        if state is None:
            for name in ("state", "metrics.jsonl", EXPERT, EVENTS):
                set_aside(self._path / name)
        else:
            refuse_other_run(self._path, state.values, self._identity)
            trim_metrics(self._path / "metrics.jsonl", state.step)

    def write_metrics(self, metrics: Mapping[str, float]) -> None:
        """Add the metrics of a step; a failure is logged once."""
        if not self._writes:
            return
        try:
            append_metrics(self._path / "metrics.jsonl", metrics)
        except OSError as error:
            if not self._lacks_metrics:
                log.warning("the metrics from step %s on could not be saved: %s", metrics["step"], error)
            self._lacks_metrics = True
        if self._events:
            self._events.write(metrics)

    def save_if_due(self, run: Run, progress: Progress) -> None:
        """Save the state every `save_every` steps, or every `SAVE_AFTER_S` where that option is 0.

        After the last step it is not due: the state is saved at the end anyway.
        """
        if progress.is_finished:
            is_due = False
        elif run.config.save_every:
            is_due = progress.step % run.config.save_every == 0
        else:
            is_due = time.monotonic() - self._saved_s >= SAVE_AFTER_S
        if is_due:
            self.save(progress)

    def save(self, progress: Progress) -> None:
        """Save the state to resume from."""
        if not self._writes:
            return
        with warned_of_a_full_disk(f"the state after step {progress.step}"):
            save_state(self._path / "state", progress.state(self._identity))
        self._saved_s = time.monotonic()

    def close(self) -> None:
        """Close the file for TensorBoard."""
        if self._events:
            self._events.close()


@contextmanager
def opened_folder(storage: Storage, processes: Processes) -> Iterator[RunFolder]:
    """Lock the folder of a run against other runs while the context lasts.

    Raises:
        ValueError: if another run uses the folder.
        OSError: if the folder cannot be written.
    """
    with locked(storage.run_dir if processes.is_first else None):
        folder = RunFolder(storage, processes)
        try:
            yield folder
        finally:
            folder.close()


@contextmanager
def warned_of_a_full_disk(subject: str) -> Iterator[None]:
    """Log an OSError and continue: the result, or the reason why the run stopped, matters more.

    Args:
        subject: what the block writes, for the log.
    """
    try:
        yield
    except OSError as error:
        log.warning("%s could not be saved: %s", subject, error)


def set_aside(path: Path) -> None:
    """Rename what an earlier run left, so that a new run neither mixes with it nor deletes it."""
    if path.exists():
        number = 1
        while (target := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
            number += 1
        path.rename(target)


def append_metrics(path: Path, metrics: Mapping[str, float]) -> None:
    """Add one line of JSON to `metrics.jsonl`, or nothing if the line does not fit on the disk."""
    with path.open("ab", buffering=0) as file:
        end = file.tell()
        line = json.dumps(metrics).encode() + b"\n"
        try:
            if file.write(line) < len(line):  # the disk had room for a part of it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(end)
            raise


def trim_metrics(path: Path, step: int) -> None:
    """Remove the lines of `metrics.jsonl` after a step: the resumed run writes them again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_atomically(path, "".join(line for line in lines if _step_of(line) <= step).encode())


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return math.inf  # torn when the run was killed
