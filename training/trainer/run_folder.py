"""What a run keeps in its folder while it goes: the resume state, and the figures of every step."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import state as checkpoint
from .event_file import open_event_file
from .run import Run, restore_state
from .state import BANK, State, open_run_folder, run_identity

log = logging.getLogger(__name__)

SAVE_AFTER_S = 600.0  # what a killed run loses at most
BEST = "best."  # before the names of an adapter's factors, among the tensors of a state


def kept_beta(run_dir: Path) -> float | None:
    """Return the beta of the run in a folder, None where it holds no state."""
    state = checkpoint.load_newest(run_dir / "state")
    return state and state.values.get("settings", {}).get("beta")


def open_run(run: Run, *, base_hash: str, resume: bool) -> bool:
    """Prepare the folder of a run, and set the run to the state to go on from.

    Args:
        run: before its first step.
        base_hash: of the weights of its base model.
        resume: go on from the newest state, if there is one.

    Returns:
        Whether there was one.

    Raises:
        ValueError: if the state belongs to another run, is further than the run is to go, or is not the one
            that the other processes found.
    """
    if run.run_dir is None:
        return False
    chosen = (run.weights, *(bucket.pairs for bucket in run.data.buckets))
    run.identity = run_identity(
        run.config, run.data.encoding_hash, chosen=chosen, schedule=run.schedule, base_hash=base_hash
    )
    with run.processes.first_goes_first():
        if run.processes.is_first:
            state = open_run_folder(run.run_dir, run.identity, resume=resume)
        else:  # the folder is on a disk that all processes see
            state = checkpoint.load_newest(run.run_dir / "state") if resume else None
    _refuse_discord(run, state)
    if run.processes.is_first:
        run.events = open_event_file(run.run_dir, run.config, done=state.step if state else 0)
    if state is None:
        return False
    if state.step > run.config.steps:
        raise ValueError(
            f"the run in {run.run_dir} has {state.step} steps behind it, more than the {run.config.steps} "
            "asked for. Ask for more steps, or choose a new run folder."
        )
    run.losses, run.validations = (list(state.values[name]) for name in ("losses", "validations"))
    run.best = _best_of(state)
    run.scaler.load_state_dict(state.values["scaler"])
    run.micro_batch = state.values["micro_batch"]  # another one would round the sums differently
    restore_state(run, state)
    return True


def is_due(run: Run) -> bool:
    """Say whether it is time for a state: after `save_every` steps; where that is 0, after some minutes."""
    if run.config.save_every:
        return run.step % run.config.save_every == 0
    return time.monotonic() - run.saved_s >= SAVE_AFTER_S


def _refuse_discord(run: Run, state: State | None) -> None:
    """Refuse processes of different runs or steps, whose gradients would be added up in silence."""
    found = f"the state {_digest(state.values)[:8]} after step {state.step}" if state else "no state"
    told = [json.loads(words) for words in run.processes.exchange(json.dumps([_digest(run.identity), found]))]
    identity_of_first, found_by_first = told[0]
    for number, (identity, found) in enumerate(told):
        if identity != identity_of_first:
            raise ValueError(
                f"process {number} has other options, pairs or another base model than process 0. Start all "
                "with the same command, on copies of the same files."
            )
        if found != found_by_first:
            raise ValueError(
                f"process {number} found {found} in {run.run_dir}, process 0 {found_by_first}. Use a run "
                "folder on a disk that all processes see."
            )


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def save_run(run: Run) -> None:
    """Write the resume state; what the disk cannot take is a warning in the log, for the run has it still."""
    if run.run_dir is None or not run.processes.is_first:
        return
    values = {name: getattr(run, name) for name in ("losses", "metrics", "validations", "micro_batch")}
    values |= {"scaler": run.scaler.state_dict(), **run.identity}
    tensors = checkpoint.pack(run.parameters, run.optimizer)
    if run.config.bank:
        tensors[BANK] = run.bank.errors
    if run.best:
        tensors |= {f"{BEST}{name}": tensor for name, tensor in run.best.tensors.items()}
        values["best"] = {"step": run.best.step, **run.best.values}
    state = State(run.step, tensors, values)
    with warned_of_a_full_disk(f"the state after step {run.step}"):
        checkpoint.save_state(run.run_dir / "state", state)
    run.saved_s = time.monotonic()


def _best_of(state: State) -> State | None:
    if "best" not in state.values:
        return None
    values = dict(state.values["best"])
    own = {name.removeprefix(BEST): state.tensors[name] for name in state.tensors if name.startswith(BEST)}
    return State(values.pop("step"), own, values)


def write_figures(run: Run) -> None:
    """Add the figures of the step that was done to `metrics.jsonl`; a full disk is a warning, once."""
    if run.run_dir is None or not run.processes.is_first:
        return
    try:
        checkpoint.append_metrics(run.run_dir / "metrics.jsonl", run.metrics)
    except OSError as error:
        if not run.lacks_figures:
            log.warning("the figures from step %s on could not be saved: %s", run.step, error)
        run.lacks_figures = True
    if run.events:
        run.events.write(run.metrics)


@contextmanager
def warned_of_a_full_disk(what: str) -> Iterator[None]:
    """Log what could not be written and go on: the result, or why the run stopped, matters more."""
    try:
        yield
    except OSError as error:
        log.warning("%s could not be saved: %s", what, error)
