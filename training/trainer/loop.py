"""The training of one expert: from a frozen UNet and encoded pairs to a LoRA, step by step."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from ..config import TrainConfig
from ..experts import adapter
from ..losses import resolved
from ..models.network import input_like
from ..models.noise import Schedule
from ..pairs.training_data import TrainingData
from ..system.processes import ALONE, Processes
from ..system.quantities import duration
from .held_out import held_out
from .kept import measured_rows, with_everyday
from .progress import Progress
from .result import TrainResult, current_result, final_result
from .run import Callbacks, Run, named_precision
from .run_folder import RunFolder, Storage, opened_folder, warned_of_a_full_disk
from .start import adapted, refuse_inference, refuse_misfit, start
from .step import take_step
from .validation import Validation

log = logging.getLogger(__name__)


def train(
    unet: nn.Module,
    data: TrainingData,
    schedule: Schedule,
    config: TrainConfig,
    *,
    storage: Storage | None = None,
    callbacks: Callbacks | None = None,
    free_bytes: int | None = None,
    processes: Processes = ALONE,
) -> TrainResult:
    """Train one safety expert on a frozen UNet.

    The reference is the same UNet with the adapter off. The UNet comes back as it was, also after an error;
    an adapter left by an earlier run is removed first.

    Args:
        unet: frozen UNet of diffusers or `Network`, on the device to train on, made of normal (not inference)
            tensors.
        data: encoded pairs.
        schedule: of the family of the UNet.
        config: options of the run.
        storage: the run folder, locked against other runs, and whether to resume from it; None: nothing is
            written. A full disk is a warning in the log, and training continues.
        callbacks: how the caller follows and stops the run; None: not at all.
        free_bytes: memory that training may take beside what is allocated; pairs per micro-batch and
            checkpointing are chosen to fit it, see `plan_run`. None: as the options say, unchecked.
        processes: the processes that train this expert together. The batch stays what the options say, each
            process takes its share of it, and only the first writes.

    Returns:
        The adapter and the figures of the run.

    Raises:
        ValueError: if an option, the data or the state to resume does not fit, or another run uses the
            folder.
        OSError: if the run folder cannot be written.
        RuntimeError: if called in inference mode, if one pair does not fit into free_bytes, or if the loss
            becomes infinite or NaN; the run is then set back to the last good state.
    """
    storage = storage or Storage()
    refuse_inference(unet)
    if storage.resume and storage.run_dir is None:
        raise ValueError("resume needs the run folder to resume from, got none.")
    adapter.detach_adapter(unet)
    refuse_misfit(data, config, processes)
    config = replace(config, precision=named_precision(config.precision, input_like(unet).device))
    limits = {"trusted_only": config.pair_weighting in ("filter", "star"), "needed": config.patience > 0}
    everyday = measured_rows(data, schedule, config.seed)
    data, held = held_out(data, config.validation, seed=config.seed, **limits)
    data = with_everyday(data)
    with opened_folder(storage.for_base(unet), processes) as folder, adapted(unet, config):
        any_beta = resolved(config, lambda: 1.0)  # beta is measured later, and the plan does not depend on it
        run = Run.of(unet, data, schedule, any_beta, processes=processes, callbacks=callbacks)
        run, progress, plan = start(run, config, held, folder, free_bytes)
        run.callbacks.on_plan(plan)
        start_s = time.perf_counter()
        _take_all_steps(run, progress, folder, Validation(run, progress, held, everyday))
        folder.save(progress)
        return final_result(run, progress, plan, seconds=time.perf_counter() - start_s)


def _take_all_steps(run: Run, progress: Progress, folder: RunFolder, validation: Validation) -> None:
    first, start_s = progress.step + 1, time.perf_counter()
    with _saved_when_stopped(run, progress, folder), torch.enable_grad():
        while not progress.is_finished:
            take_step(run, progress)
            validation.after_step()
            if progress.step == first:
                _log_pace(time.perf_counter() - start_s, progress.last_step - first)
            folder.write_metrics(progress.metrics)
            folder.save_if_due(run, progress)
            run.callbacks.on_progress(progress.step, progress.last_step, progress.metrics)


@contextmanager
def _saved_when_stopped(run: Run, progress: Progress, folder: RunFolder) -> Iterator[None]:
    """When a run stops early, for any reason, save its last good state and report the result so far."""
    try:
        yield
    except BaseException:  # a cancel, Ctrl-C or a full memory alike
        progress.undo_unfinished_step()
        if progress.step:
            folder.save(progress)
            if run.processes.is_first:
                with warned_of_a_full_disk(f"the result after step {progress.step}"):
                    run.callbacks.on_stop(current_result(run, progress))
        raise


def _log_pace(step_s: float, steps_left: int) -> None:
    total = duration(step_s * steps_left)
    log.info("a step takes %s; at most %s for the %d left", duration(step_s), total, steps_left)
