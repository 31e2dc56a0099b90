"""The training loop: preference pairs in, the LoRA of one expert out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from .config import TrainConfig
from .models.noise import NoiseSchedule
from .pairs.training_data import TrainingData
from .preflight import Plan
from .ready_run import ready_run
from .run_folder import is_due, save_run, warned_of_a_full_disk, write_figures
from .step import Run, restore_state, take_step
from .system.processes import ALONE, Processes
from .system.quantities import duration
from .train_result import TrainResult, current_result, final_result
from .validation import Validation, is_settled

log = logging.getLogger(__name__)


def train(
    unet: nn.Module,
    data: TrainingData,
    schedule: NoiseSchedule,
    config: TrainConfig,
    *,
    on_progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    on_stop: Callable[[TrainResult], None] | None = None,
    check_cancel: Callable[[], None] | None = None,
    run_dir: Path | None = None,
    base_hash: str = "",
    resume: bool = False,
    free_bytes: int | None = None,
    processes: Processes = ALONE,
) -> TrainResult:
    """Train one safety expert on a frozen UNet.

    The reference is the same UNet with the adapter off. The UNet comes back as it was, also after an
    error; an adapter left by an earlier run is taken off first.

    Args:
        unet: frozen UNet of diffusers, on the device to train on, made of normal (not inference) tensors.
        data: encoded pairs.
        schedule: of the family of the UNet.
        config: options of the run.
        on_progress: called with (steps done, steps, figures as in `metrics.jsonl`) after every step. Whatever
            it raises cancels the run: the state is saved and the exception passed on.
        on_plan: called before the first step with how the run is done, and how long that may take.
        on_stop: called with what there is when the run ends early after at least one step, for whatever
            reason, before the exception is passed on. An OSError of its own is a warning in the log.
        check_cancel: called before every micro-batch; what it raises cancels the run likewise.
        run_dir: where `state/` and `metrics.jsonl` go, locked against other runs; without it nothing is
            written. What the disk cannot take is a warning in the log, and training goes on.
        base_hash: of the weights of the UNet, by which a resumed run knows it again; computed if needed and
            not given.
        resume: go on from the newest state in run_dir, or start where there is none. Without it, what
            an earlier run left there is renamed.
        free_bytes: memory that training may take beside what is allocated; pairs per micro-batch and
            checkpointing are chosen to fit it, see `plan_run`. None: as the options say, unchecked.
        processes: those that train this expert together. The batch stays what the options say, each process
            takes its share of it, and only the first writes.

    Raises:
        ValueError: if an option, the data or the state to resume does not fit, or another run uses run_dir.
        OSError: if run_dir cannot be written.
        RuntimeError: if called in inference mode, one pair does not fit into free_bytes, or the loss stops
            being finite; what there is then is the last good state.
    """
    with ready_run(
        unet, data, schedule, config, run_dir, base_hash, resume, free_bytes, processes, check_cancel
    ) as (run, held, plan):
        if on_plan:
            on_plan(plan)
        start_s = time.perf_counter()
        _loop(run, Validation(run, held), on_progress, on_stop)
        save_run(run)
        return replace(final_result(run), plan=plan, seconds=time.perf_counter() - start_s)


def _loop(
    run: Run,
    validation: Validation,
    on_progress: Callable[[int, int, Mapping[str, float]], None] | None,
    on_stop: Callable[[TrainResult], None] | None,
) -> None:
    begin, start_s = run.step, time.perf_counter()
    try:
        with torch.enable_grad():
            while run.step < run.config.steps and not is_settled(run):
                take_step(run)
                validation.after_step()
                if run.step == begin + 1:
                    step_s, left = time.perf_counter() - start_s, run.config.steps - run.step
                    log.info(
                        "a step takes %s; %s for the %d left", *map(duration, (step_s, step_s * left)), left
                    )
                _report(run, on_progress)
    except BaseException:  # a cancel, Ctrl-C or a full memory alike: keep what there is
        if not run.whole and run.good:
            restore_state(run, run.good)
        if run.step:
            save_run(run)
            if on_stop and run.processes.is_first:
                with warned_of_a_full_disk(f"what there is after step {run.step}"):
                    on_stop(current_result(run))
        raise


def _report(run: Run, on_progress: Callable[[int, int, Mapping[str, float]], None] | None) -> None:
    config = run.config
    write_figures(run)
    if run.step < config.steps and is_due(run):
        save_run(run)
    if on_progress:
        on_progress(run.step, config.steps, run.metrics)
