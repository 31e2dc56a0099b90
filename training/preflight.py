"""Before the first step: find out what fits into memory, say so, and refuse what cannot fit."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .batch import Batch
from .checkpointing import MODES, set_checkpointing
from .conditioning import Conditioning
from .free_memory import readable
from .step import Run, draw_of, gather, predict_batch

log = logging.getLogger(__name__)

USABLE = 0.9  # of what is free: kernels need workspace, and Windows swaps a full GPU's memory to RAM
_COPIES = 6  # of the adapter: gradient, two moments, and the last good state of factors and moments


class Plan(NamedTuple):
    """How the pairs of a step are run; the effective batch is the same for every plan.

    Attributes:
        micro_batch: pairs in memory at once.
        checkpointing: a mode of `checkpointing.MODES`.
        peak_bytes: expected peak beyond the weights; None where it was not computed.
        free_bytes: what was free before; None where it was not asked.
    """

    micro_batch: int
    checkpointing: str
    peak_bytes: int | None = None
    free_bytes: int | None = None

    def text(self) -> str:
        """Return the plan as one line for people."""
        line = f"{self.micro_batch} pairs at once, checkpointing {self.checkpointing}"
        if self.peak_bytes is None:
            return f"{line}; memory not computed"
        return f"{line}, {readable(self.peak_bytes)} expected of {readable(self.free_bytes)} free"


def plan_run(run: Run, free_bytes: int | None) -> Plan:
    """Choose pairs per micro-batch and checkpointing, and set them on the UNet.

    Taken is the first mode of checkpointing under which one pair fits, with as many pairs at once as fit:
    splitting a batch costs next to nothing, checkpointing 1.2 to 1.35 times the step. Bytes are computed
    from the run's own UNet and data, see `live_bytes`.

    Args:
        run: with the adapter attached, before its first step.
        free_bytes: what training may take beyond what is allocated; None: as the options say, unchecked.

    Raises:
        RuntimeError: if one pair does not fit under any mode that the options allow.
    """
    config, wanted = run.config, run.micro_batch
    modes = MODES if config.checkpointing == "auto" else (config.checkpointing,)
    if free_bytes is None:
        return _chosen(run, Plan(wanted, modes[0]))
    fixed = _COPIES * sum(parameter.nbytes for parameter in run.parameters.values())
    for mode in modes:
        set_checkpointing(run.unet, mode)
        one_pair = pair_bytes(run)
        if one_pair is None:
            return _chosen(run, Plan(wanted, modes[0], None, free_bytes))
        fitting = int((USABLE * free_bytes - fixed) // one_pair)
        if fitting >= 1:
            pairs = min(wanted, fitting)
            return _chosen(run, Plan(pairs, mode, fixed + pairs * one_pair, free_bytes))
    raise RuntimeError(
        f"one pair needs {readable(fixed + one_pair)} beside the weights with checkpointing {mode}, and "
        f"{readable(int(USABLE * free_bytes))} can be used on {run.device}. Lower resolution, set "
        "checkpointing to auto and precision to auto or bf16, or close what else uses the memory."
    )


def pair_bytes(run: Run) -> int | None:
    """Compute the peak of one pair's forward and backward pass; None where torch cannot follow the shapes."""
    largest = max(run.data.buckets, key=lambda bucket: math.prod(bucket.latent_shape))
    draw = draw_of(run, 0, [largest])
    batch = gather(run, draw.split(run.config.batch_size * run.config.grad_accumulation)[0])

    def one_pair(fake: Callable[[Tensor], Tensor]) -> None:
        rows = Batch(*(_stood_in(value, fake) for value in batch))
        with torch.enable_grad():
            loss = predict_batch(run, rows).square().mean()
            torch.autograd.grad(loss, list(run.parameters.values()))

    try:
        from .live_bytes import peak_bytes  # stands on a private part of torch, which may change

        return peak_bytes(one_pair)
    except (ImportError, RuntimeError, TypeError, AttributeError) as error:
        log.warning("the memory training needs could not be computed (%s); it starts without a check", error)
        return None


def _stood_in(value: Any, fake: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Conditioning):
        return Conditioning(*map(fake, value.tensors))
    return fake(value) if isinstance(value, Tensor) else value


def _chosen(run: Run, plan: Plan) -> Plan:
    if run.step and plan.micro_batch != run.micro_batch:
        log.warning(
            "memory is shorter than before: the resumed run may differ from an unbroken one by rounding"
        )
    set_checkpointing(run.unet, plan.checkpointing)
    run.micro_batch = plan.micro_batch
    return plan
