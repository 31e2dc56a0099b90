"""A run that is ready for its next step: checked, planned, and where it was if it goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ..config import TrainConfig
from ..experts import adapter
from ..losses import resolved
from ..models.hashes import weights_hash
from ..models.noise import NoiseSchedule
from ..pairs.training_data import Bucket, TrainingData
from ..system.processes import ALONE, Processes
from ..system.quantities import duration
from ..system.work_folder import locked
from .measured_beta import measured_beta
from .memory import set_checkpointing
from .plan import Plan, plan_run, with_expected_time
from .result import TrainResult, current_result, final_result
from .run import Run, named_precision, restore_state
from .run_folder import is_due, kept_beta, open_run, save_run, warned_of_a_full_disk, write_figures
from .step import take_step
from .validation import Validation, held_out, is_settled

log = logging.getLogger(__name__)


@contextmanager
def ready_run(
    unet: nn.Module,
    data: TrainingData,
    schedule: NoiseSchedule,
    config: TrainConfig,
    run_dir: Path | None,
    base_hash: str,
    resume: bool,
    free_bytes: int | None,
    processes: Processes,
    check_cancel: Callable[[], None] | None,
) -> Iterator[tuple[Run, tuple[Bucket, ...], Plan]]:
    """Give a run to take steps with, its held-out pairs and its plan; for arguments and errors see `train`.

    While the context lasts its folder is locked and the UNet has the adapter; the UNet comes back as it was.
    """
    _refuse_inference(unet)
    if resume and run_dir is None:
        raise ValueError("resume needs the run folder to resume from, got none.")
    adapter.detach_adapter(unet)
    _check(data, config, processes)
    config = replace(config, precision=named_precision(config.precision, unet.conv_in.weight.device))
    weighting = config.pair_weighting
    data, held = held_out(data, config.validation, seed=config.seed, trusted_only=weighting != "none")
    if run_dir and not base_hash:
        base_hash = weights_hash(unet)
    with locked(run_dir if processes.is_first else None), _adapted(unet, config):
        run = Run(unet, data, schedule, resolved(config, lambda: 1.0), run_dir, processes=processes)
        run.check_cancel = check_cancel or run.check_cancel
        try:
            yield run, held, _planned(run, held, config, free_bytes, base_hash, resume)
        finally:
            if run.events:
                run.events.close()


def _refuse_inference(unet: nn.Module) -> None:
    if torch.is_inference_mode_enabled():
        raise RuntimeError("train needs gradients. Call it inside torch.inference_mode(False).")
    if any(parameter.is_inference() for parameter in unet.parameters()):
        raise RuntimeError("the UNet was made in inference mode. Clone its weights outside of it to train.")


def _check(data: TrainingData, config: TrainConfig, processes: Processes) -> None:
    if data.num_pairs == 0:
        raise ValueError("there is no pair to train on. Choose a folder of pairs that holds some.")
    if config.flip > 0 and not data.is_mirrored:
        raise ValueError("flip needs mirrored pictures, and there are none. Encode the pairs with mirrored.")
    if config.bank and config.pair_weighting == "star":
        raise ValueError(
            "bank keeps errors, and pair_weighting star needs the base model's predictions in every step. "
            "Set bank to 0, or choose another pair_weighting."
        )
    batch = config.batch_size * config.grad_accumulation
    if batch < processes.count:
        raise ValueError(
            f"batch_size times grad_accumulation must be at least the number of processes, got {batch} for "
            f"{processes.count}. Raise one of the two, or start fewer processes."
        )
    if config.patience and not config.validation:
        raise ValueError("patience needs held-out pairs to watch. Set validation above 0, or patience to 0.")


@contextmanager
def _adapted(unet: nn.Module, config: TrainConfig) -> Iterator[None]:
    try:
        adapter.attach_adapter(
            unet, rank=config.rank, alpha=config.alpha, targets=config.targets, seed=config.seed
        )
        yield
    finally:
        set_checkpointing(unet, "none")
        adapter.detach_adapter(unet)


def _planned(
    run: Run,
    held: tuple[Bucket, ...],
    config: TrainConfig,
    free_bytes: int | None,
    base_hash: str,
    resume: bool,
) -> Plan:
    """Set a run to its beginning or to the state it goes on from, and return how it is done."""
    plan = plan_run(run, free_bytes)  # before beta is measured, as that takes memory too
    run.config = resolved(config, lambda: _own_beta(run, resume))
    if open_run(run, base_hash=base_hash, resume=resume):
        plan = plan_run(run, free_bytes)
    plan = with_expected_time(run, plan, held)
    log.info("plan: %s", plan.text())
    return plan


def _own_beta(run: Run, resume: bool) -> float:
    """Return the beta of the run to go on with, else one measured on the pairs; the first process's for all.

    Another device, or another number of pairs at once, may measure another second digit.
    """
    beta = (kept_beta(run.run_dir) if resume else None) or measured_beta(run)
    return float(run.processes.exchange(repr(beta))[0])


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
