"""The training loop: preference pairs in, the LoRA of one expert out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from . import adapter
from .checkpointing import set_checkpointing
from .config import TrainConfig
from .data.training_data import TrainingData
from .duration import duration
from .losses import resolved
from .low_rank import LowRank
from .measured_beta import measured_beta
from .noise import NoiseSchedule
from .preflight import Plan, plan_run
from .processes import ALONE, Processes
from .run_folder import open_run, save_run, warned_of_a_full_disk, write_figures
from .run_lock import locked
from .step import Run, restore_state, take_step

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What a run ends with.

    Attributes:
        layers: module path -> LowRank, alpha / rank folded in.
        losses: total loss of every step, those before a resume included.
        metrics: the figures of the last step, as in `metrics.jsonl`.
        steps_done: optimizer steps behind this LoRA.
        config: options of the run, resolved.
        initial_a_hash: see `adapter.initial_a_hash`.
        cancelled: whether the run ended before its last step.
        plan: how its batches were run; None where it was cancelled.
        seconds: what this call took for its steps; 0 where it was cancelled.
    """

    layers: dict[str, LowRank]
    losses: list[float]
    metrics: dict[str, float]
    steps_done: int
    config: TrainConfig
    initial_a_hash: str
    cancelled: bool = False
    plan: Plan | None = None
    seconds: float = 0.0


def train(
    unet: nn.Module,
    data: TrainingData,
    schedule: NoiseSchedule,
    config: TrainConfig,
    *,
    on_progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
    on_stop: Callable[[TrainResult], None] | None = None,
    check_cancel: Callable[[], None] | None = None,
    run_dir: Path | None = None,
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
        on_stop: called with what there is when the run ends early after at least one step, for whatever
            reason, before the exception is passed on. An OSError of its own is a warning in the log.
        check_cancel: called before every micro-batch; what it raises cancels the run likewise.
        run_dir: where `state/` and `metrics.jsonl` go, locked against other runs; without it nothing is
            written. What the disk cannot take is a warning in the log, and training goes on.
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
    _refuse_inference(unet)
    if resume and run_dir is None:
        raise ValueError("resume needs the run folder to resume from, got none.")
    adapter.detach_adapter(unet)
    config = _resolved(unet, data, schedule, config, processes)
    with locked(run_dir if processes.is_first else None):
        try:
            adapter.attach_adapter(
                unet, rank=config.rank, alpha=config.alpha, targets=config.targets, seed=config.seed
            )
            run = Run(unet, data, schedule, config, run_dir, processes=processes)
            run.check_cancel = check_cancel or run.check_cancel
            open_run(run, resume=resume)
            plan = plan_run(run, free_bytes)
            start_s = time.perf_counter()
            _loop(run, on_progress, on_stop)
            save_run(run)
            return replace(_result(run), plan=plan, seconds=time.perf_counter() - start_s)
        finally:
            set_checkpointing(unet, "none")
            adapter.detach_adapter(unet)


def _refuse_inference(unet: nn.Module) -> None:
    if torch.is_inference_mode_enabled():
        raise RuntimeError("train needs gradients. Call it inside torch.inference_mode(False).")
    if any(parameter.is_inference() for parameter in unet.parameters()):
        raise RuntimeError("the UNet was made in inference mode. Clone its weights outside of it to train.")


def _resolved(
    unet: nn.Module,
    data: TrainingData,
    schedule: NoiseSchedule,
    config: TrainConfig,
    processes: Processes,
) -> TrainConfig:
    if data.num_pairs == 0:
        raise ValueError("there is no pair to train on. Choose a folder of pairs that holds some.")
    if config.flip > 0 and not data.is_mirrored:
        raise ValueError("flip needs mirrored pictures, and there are none. Encode the pairs with mirrored.")
    batch = config.batch_size * config.grad_accumulation
    if batch < processes.count:
        raise ValueError(
            f"batch_size times grad_accumulation must be at least the number of processes, got {batch} for "
            f"{processes.count}. Raise one of the two, or start fewer processes."
        )
    return resolved(config, lambda: measured_beta(unet, data, schedule, config))


def _loop(
    run: Run,
    on_progress: Callable[[int, int, Mapping[str, float]], None] | None,
    on_stop: Callable[[TrainResult], None] | None,
) -> None:
    begin, start_s = run.step, time.perf_counter()
    try:
        with torch.enable_grad():
            while run.step < run.config.steps:
                take_step(run)
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
                    on_stop(_result(run, cancelled=True))
        raise


def _log_pace(step_s: float, left: int) -> None:
    log.info("a step takes %s: %s for the %d left", duration(step_s), duration(step_s * left), left)


def _report(run: Run, on_progress: Callable[[int, int, Mapping[str, float]], None] | None) -> None:
    config = run.config
    write_figures(run)
    if config.save_every and run.step % config.save_every == 0 and run.step < config.steps:
        save_run(run)
    if on_progress:
        on_progress(run.step, config.steps, run.metrics)


def _result(run: Run, *, cancelled: bool = False) -> TrainResult:
    layers = adapter.read_adapter(run.unet)
    return TrainResult(
        layers, list(run.losses), run.metrics, run.step, run.config, run.initial_a_hash, cancelled
    )
