"""training/trainer/run.py."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..config import TrainConfig
from ..experts import adapter
from ..losses import LOSSES
from ..models.noise import NoiseSchedule
from ..pairs.training_data import Bucket, TrainingData
from ..system.processes import ALONE, Processes
from . import state as checkpoint
from .bank import Bank
from .draws import Draw, draw_step
from .event_file import EventFile
from .pair_weighting import weighed
from .state import BANK, State

ADAM_BETAS, ADAM_EPS = (0.9, 0.999), 1e-8  # AlignGuard's launchers


@dataclass
class Run:
    """All state of a run; `config` is resolved, `good` is the last state whose loss was finite."""

    unet: nn.Module
    data: TrainingData
    schedule: NoiseSchedule
    config: TrainConfig
    run_dir: Path | None
    step: int = 0
    losses: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    validations: list[dict[str, float]] = field(default_factory=list)  # on held-out pairs, each with its step
    best: State | None = None  # the adapter with the largest held-out margin, where training stops by that
    best_before: State | None = None  # to go back to, should the step of `best` not stand
    identity: Mapping[str, Any] = field(default_factory=dict)
    good: State | None = None
    processes: Processes = ALONE
    micro_batch: int = 0  # pairs in memory at once, at most; 0: as config.batch_size says
    check_cancel: Callable[[], None] = lambda: None  # called before every micro-batch; may raise
    saved_s: float = field(default_factory=time.monotonic)  # when its state was written last, or it began
    lacks_figures: bool = False  # the disk could not take some
    events: EventFile | None = None  # for TensorBoard, where that is installed
    whole: bool = True  # False from a figure that is not finite, or while the step is written

    def __post_init__(self) -> None:
        self.data, self.weights = weighed(self.data, self.config.pair_weighting)
        self.initial_a_hash = adapter.initial_a_hash(self.unet)
        self.parameters = adapter.adapter_parameters(self.unet)
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), betas=ADAM_BETAS, eps=ADAM_EPS, weight_decay=self.config.weight_decay
        )
        self.device = next(iter(self.parameters.values())).device
        self.autocast = autocast_dtype(self.config.precision, self.device)
        kind = self.device.type if self.device.type in ("cuda", "cpu") else "cpu"
        self.scaler = torch.amp.GradScaler(kind, enabled=self.autocast == torch.float16)
        self.micro_batch = self.micro_batch or self.config.batch_size
        prompts = 2 if self.config.safe_prompt_weight > 0 else 1
        self.bank = Bank(self.data.num_pairs, self.config.bank, prompts, self.device)


def named_precision(precision: str, device: torch.device) -> str:
    """Return a precision as it is, but for `auto` what that means: the best that the device does fast."""
    if precision != "auto":
        return precision
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the type to run the UNet in, None for its own."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(named_precision(precision, device))


def draw_of(run: Run, step: int, buckets: Sequence[Bucket] = ()) -> Draw:
    """Return the random choices of a step (from 0) of this run, out of some buckets, or of all."""
    config = run.config
    return draw_step(
        step,
        seed=config.seed,
        batch_size=config.batch_size * config.grad_accumulation,
        buckets=buckets or run.data.buckets,
        num_timesteps=LOSSES[config.objective].num_timesteps,
        caption_dropout=config.caption_dropout,
        flip=config.flip,
        bank=config.bank,
    )


def restore_state(run: Run, state: State) -> None:
    """Set a run back to a state: factors, optimizer, step, and the losses and measurements up to there."""
    checkpoint.unpack(state.tensors, run.parameters, run.optimizer)
    if BANK in state.tensors:
        run.bank.restore(state.tensors[BANK])
    elif BANK in state.values:
        run.bank.forget_after(state.values[BANK])
    run.step, run.metrics, run.whole = state.step, dict(state.values["metrics"]), True
    del run.losses[state.step :]
    run.validations = [figures for figures in run.validations if figures["step"] <= state.step]
    if run.best and run.best.step > state.step:
        run.best = run.best_before
