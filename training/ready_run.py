"""A run that is ready for its next step: checked, planned, and where it was if it goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from .checkpointing import set_checkpointing
from .config import TrainConfig
from .data.held_out import held_out
from .expected_time import with_expected_time
from .experts import adapter
from .losses import resolved
from .measured_beta import measured_beta
from .models.hashes import weights_hash
from .models.noise import NoiseSchedule
from .pairs.training_data import Bucket, TrainingData
from .preflight import Plan, plan_run
from .run_folder import kept_beta, open_run
from .step import Run, named_precision
from .system.processes import Processes
from .system.work_folder import locked

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
