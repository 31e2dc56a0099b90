"""The training loop: preference pairs in, the LoRA of one expert out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from . import adapter, checkpoint
from .checkpoint import State
from .config import TrainConfig
from .data.cache import TrainingData
from .losses import resolved
from .low_rank import LowRank
from .measured_beta import measured_beta
from .noise import NoiseSchedule
from .resume import open_run_folder, run_identity
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
    """

    layers: dict[str, LowRank]
    losses: list[float]
    metrics: dict[str, float]
    steps_done: int
    config: TrainConfig
    initial_a_hash: str
    cancelled: bool = False


def train(
    unet: nn.Module,
    data: TrainingData,
    schedule: NoiseSchedule,
    config: TrainConfig,
    *,
    on_progress: Callable[[int, int, float], None] | None = None,
    on_stop: Callable[[TrainResult], None] | None = None,
    run_dir: Path | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train one safety expert on a frozen UNet.

    The reference is the same UNet with the adapter off. The UNet comes back as it was, also after an
    error; an adapter left by an earlier run is taken off first.

    Args:
        unet: frozen UNet of diffusers, on the device to train on, made of normal (not inference) tensors.
        data: cached latents and embeddings.
        schedule: of the family of the UNet.
        config: options of the run.
        on_progress: called with (steps done, steps, loss) after every step. Whatever it raises cancels
            the run: the state is saved and the exception passed on.
        on_stop: called with what there is when the run ends early after at least one step, for whatever
            reason, before the exception is passed on. An OSError of its own is a warning in the log.
        run_dir: where `state/` and `metrics.jsonl` go; without it nothing is written. A state that the disk
            cannot take once training has ended is a warning in the log, and the result is returned.
        resume: go on from the newest state in run_dir, or start where there is none. Without it, what
            an earlier run left there is renamed.

    Raises:
        ValueError: if an option, the data or the state to resume does not fit.
        RuntimeError: if called in inference mode, or the loss stops being finite; what there is then is
            the last good state.
    """
    _refuse_inference(unet)
    adapter.detach_adapter(unet)
    config = _resolved(unet, data, schedule, config, run_dir, resume)
    try:
        adapter.attach_adapter(
            unet, rank=config.rank, alpha=config.alpha, targets=config.targets, seed=config.seed
        )
        run = Run(unet, data, schedule, config, run_dir)
        if run_dir:
            _open_run_dir(run, resume)
        _loop(run, on_progress, on_stop)
        with _warned_of_a_full_disk(f"the state after step {run.step}"):
            _save(run)
        return _result(run)
    finally:
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
    run_dir: Path | None,
    resume: bool,
) -> TrainConfig:
    if data.num_pairs == 0:
        raise ValueError("there is no pair to train on. Choose a folder of pairs that holds some.")
    if resume and run_dir is None:
        raise ValueError("resume needs the run folder to resume from, got none.")
    return resolved(config, lambda: measured_beta(unet, data, schedule, config))


def _open_run_dir(run: Run, resume: bool) -> None:
    base = next(w for name, w in run.unet.named_parameters() if name.endswith("base_layer.weight"))
    latents = (run.data.winner, run.data.loser, run.data.neutral, run.weights)
    run.identity = run_identity(run.config, run.data.pairs_hash, data=latents, base=base)
    state = open_run_folder(run.run_dir, run.identity, resume=resume)
    if state is None:
        return
    if state.step > run.config.steps:
        raise ValueError(
            f"the run in {run.run_dir} has {state.step} steps behind it, more than the {run.config.steps} "
            "asked for. Ask for more steps, or choose a new run folder."
        )
    run.losses = list(state.values["losses"])
    run.scaler.load_state_dict(state.values["scaler"])
    restore_state(run, state)


def _loop(
    run: Run,
    on_progress: Callable[[int, int, float], None] | None,
    on_stop: Callable[[TrainResult], None] | None,
) -> None:
    try:
        with torch.enable_grad():
            while run.step < run.config.steps:
                take_step(run)
                _report(run, on_progress)
    except BaseException:  # a cancel, Ctrl-C or a full memory alike: keep what there is
        if not run.whole and run.good:
            restore_state(run, run.good)
        if run.step:
            with _warned_of_a_full_disk(f"the state after step {run.step}"):
                _save(run)
            if on_stop:
                with _warned_of_a_full_disk(f"what there is after step {run.step}"):
                    on_stop(_result(run, cancelled=True))
        raise


def _report(run: Run, on_progress: Callable[[int, int, float], None] | None) -> None:
    config = run.config
    if run.run_dir:
        checkpoint.append_metrics(run.run_dir / "metrics.jsonl", run.metrics)
    if config.save_every and run.step % config.save_every == 0 and run.step < config.steps:
        _save(run)
    if on_progress:
        on_progress(run.step, config.steps, run.losses[-1])


def _save(run: Run) -> None:
    if run.run_dir:
        values = {"losses": run.losses, "metrics": run.metrics, "scaler": run.scaler.state_dict()}
        tensors = checkpoint.pack(run.parameters, run.optimizer)
        checkpoint.save_state(run.run_dir / "state", State(run.step, tensors, {**values, **run.identity}))


@contextmanager
def _warned_of_a_full_disk(what: str) -> Iterator[None]:
    """Log what could not be written and go on: the result, or why the run stopped, matters more."""
    try:
        yield
    except OSError as error:
        log.warning("%s could not be saved: %s", what, error)


def _result(run: Run, *, cancelled: bool = False) -> TrainResult:
    layers = adapter.read_adapter(run.unet)
    return TrainResult(
        layers, list(run.losses), run.metrics, run.step, run.config, run.initial_a_hash, cancelled
    )
