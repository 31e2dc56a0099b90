"""Everything before the first step: refuse what cannot be trained, plan, measure beta, and resume."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from ..config import TrainConfig
from ..experts import adapter
from ..losses import objective_named, resolved
from ..models.network import set_checkpointing
from ..pairs.training_data import Bucket, TrainingData
from ..system.processes import Processes
from .expected_time import with_expected_time
from .measured_beta import measured_beta
from .plan import Plan, plan_run
from .progress import Progress
from .run import Run
from .run_folder import RunFolder

log = logging.getLogger(__name__)


def refuse_inference(unet: nn.Module) -> None:
    """Check that gradients can be computed.

    Raises:
        RuntimeError: in inference mode, or if the UNet was made in it.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("train needs gradients. Call it inside torch.inference_mode(False).")
    if any(parameter.is_inference() for parameter in unet.parameters()):
        raise RuntimeError("the UNet was made in inference mode. Clone its weights outside of it to train.")


def refuse_misfit(data: TrainingData, config: TrainConfig, processes: Processes) -> None:
    """Check that the pairs, the options and the processes fit each other.

    Raises:
        ValueError: if they do not; the error says what to change.
    """
    if data.num_pairs == 0:
        raise ValueError("there is no pair to train on. Choose a folder that contains pairs.")
    if config.flip > 0 and not data.is_mirrored:
        raise ValueError("flip needs mirrored images, and there are none. Encode the pairs with mirrored.")
    if config.bank and config.pair_weighting == "star":
        raise ValueError(
            "bank keeps errors, and pair_weighting star needs the base model's predictions in every step. "
            "Set bank to 0, or choose another pair_weighting."
        )
    if config.pair_weighting == "soft" and "labels" not in objective_named(config.objective).extras:
        raise ValueError(
            f"pair_weighting soft needs an objective with soft labels, and {config.objective} has none. "
            "Choose the objective composite, or pair_weighting relabel."
        )
    batch = config.batch_size * config.grad_accumulation
    if batch < processes.count:
        raise ValueError(
            f"batch_size times grad_accumulation must be at least the number of processes, got {batch} for "
            f"{processes.count}. Raise one of the two, or start fewer processes."
        )
    if config.patience and not config.validation:  # where it is above 0, the pairs decide, see `held_out`
        raise ValueError("patience needs held-out pairs to watch. Set validation above 0, or patience to 0.")


@contextmanager
def adapted(unet: nn.Module, config: TrainConfig) -> Iterator[None]:
    """Attach a new adapter to a UNet while the context lasts; afterwards the UNet is as it was."""
    try:
        adapter.attach_adapter(
            unet, rank=config.rank, alpha=config.alpha, targets=config.targets, seed=config.seed
        )
        yield
    finally:
        set_checkpointing(unet, "none")
        adapter.detach_adapter(unet)


def start(
    run: Run, options: TrainConfig, held: Sequence[Bucket], folder: RunFolder, free_bytes: int | None
) -> tuple[Run, Progress, Plan]:
    """Plan a run, measure its beta if the options leave it open, and resume it if the folder has its state.

    Args:
        run: with options that are resolved as if beta were 1, because planning needs no beta.
        options: as the user gave them.
        held: buckets of the held-out pairs.
        folder: of the run.
        free_bytes: memory that training may take beside what is allocated; None: unchecked.

    Returns:
        The run with its options and `micro_batch`, how far it is, and its plan.
    """
    plan = plan_run(run, free_bytes)  # before beta is measured, because that takes memory too
    run = replace(run, micro_batch=plan.micro_batch)
    run = replace(run, config=resolved(options, lambda: _shared_beta(run, folder)))
    state = folder.open(run)
    if state:
        micro_batch = state.values["micro_batch"]  # another one would round the sums differently
        plan = plan_run(replace(run, micro_batch=micro_batch), free_bytes)
        run = replace(run, micro_batch=plan.micro_batch)
        if plan.micro_batch != micro_batch:
            log.warning(
                "less memory is free than before: the resumed run may differ from an unbroken one by rounding"
            )
    progress = Progress(run)
    if state:
        progress.resume(state)
    plan = with_expected_time(plan, run, progress, held)
    log.info("plan: %s", plan.text())
    return run, progress, plan


def _shared_beta(run: Run, folder: RunFolder) -> float:
    """Return the beta of the run to continue, or one measured on the pairs; in all processes the first's.

    Another device, or another number of pairs at once, may measure a different second digit.
    """
    beta = folder.saved_beta() or measured_beta(run)
    return float(run.processes.exchange(repr(beta))[0])
