"""The training loop: preference pairs in, the LoRA of one expert out."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import adapter, checkpoint
from .batch import Batch, Draw, draw_step, neutral_rows, pair_rows, stack_rows
from .checkpoint import State
from .config import TrainConfig
from .data.cache import TrainingData
from .losses import LOSSES, Objective
from .losses.anchored import preservation, winner_anchor
from .low_rank import LowRank
from .noise import NoiseSchedule, pair_errors
from .preference import PairErrors

ADAM_BETAS, ADAM_EPS = (0.9, 0.999), 1e-8  # AlignGuard's launchers
FREE_SETTINGS = ("steps", "save_every")  # these may differ on resume, and it is still the same run


@dataclass(frozen=True)
class TrainResult:
    """What a run ends with.

    Attributes:
        layers: module path -> LowRank, alpha / rank folded in.
        losses: total loss of every step, those before a resume included.
        metrics: the figures of the last step, as in `metrics.jsonl`.
        steps_done: optimizer steps behind this LoRA.
        cancelled: for callers who wrap a cancelled run's adapter; `train` itself raises then.
        initial_a_hash: see `adapter.initial_a_hash`.
    """

    layers: dict[str, LowRank]
    losses: list[float]
    metrics: dict[str, float]
    steps_done: int
    cancelled: bool = False
    initial_a_hash: str = ""


@dataclass
class _Run:
    """All state of a run; `config` has beta resolved, `good` is the last state whose loss was finite."""

    unet: nn.Module
    data: TrainingData
    schedule: NoiseSchedule
    config: TrainConfig
    run_dir: Path | None
    step: int = 0
    losses: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    good: State | None = None

    def __post_init__(self):
        self.parameters = adapter.adapter_parameters(self.unet)
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), betas=ADAM_BETAS, eps=ADAM_EPS, weight_decay=self.config.weight_decay
        )
        self.device = next(iter(self.parameters.values())).device
        self.autocast = autocast_dtype(self.config.precision, self.device)
        needs_scaler = self.device.type == "cuda" and self.autocast == torch.float16
        self.scaler = torch.amp.GradScaler("cuda", enabled=needs_scaler)

    @property
    def objective(self) -> Objective:
        return LOSSES[self.config.objective]


def train(
    unet: nn.Module,
    data: TrainingData,
    schedule: NoiseSchedule,
    config: TrainConfig,
    *,
    on_progress: Callable[[int, int, float], None] | None = None,
    run_dir: Path | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train one safety expert on a frozen UNet.

    The reference is the same UNet with the adapter off. The UNet comes back as it was, except after an
    error: then the adapter stays attached, for `adapter.read_adapter` to fetch what there is. An adapter
    left by an earlier run is taken off first.

    Args:
        unet: frozen UNet of diffusers, on the device to train on, made of normal (not inference) tensors.
        data: cached latents and embeddings.
        schedule: of the family of the UNet.
        config: options of the run.
        on_progress: called with (steps done, steps, loss) after every step. Whatever it raises cancels
            the run: the state is saved and the exception passed on.
        run_dir: where `state/` and `metrics.jsonl` go; without it nothing is written.
        resume: go on from the newest state in run_dir, or start where there is none. Without it, what
            an earlier run left there is renamed.

    Raises:
        ValueError: if an option, the data or the state to resume does not fit.
        RuntimeError: if called in inference mode, or the loss stops being finite; the adapter is then
            set back to its last good state.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("train needs gradients. Call it inside torch.inference_mode(False).")
    config = _resolved(config, data, run_dir, resume)
    adapter.detach_adapter(unet)
    adapter.attach_adapter(
        unet, rank=config.rank, alpha=config.alpha, targets=config.targets, seed=config.seed
    )
    initial_a_hash = adapter.initial_a_hash(unet)
    run = _Run(unet, data, schedule, config, run_dir)
    if run_dir:
        _open_run_dir(run, resume)
    with torch.enable_grad():
        while run.step < config.steps:
            _step(run)
            _report(run, on_progress)
    return _finish(run, initial_a_hash)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the rate of a step (from 0): constant, after a linear rise over `warmup_steps`."""
    return config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the type to run the UNet in, None for its own; `auto` is the best the device does fast."""
    if precision == "auto" and device.type == "cuda":
        precision = "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


def figures(policy: Tensor, reference: Tensor, batch: Batch, config: TrainConfig) -> dict[str, Tensor]:
    """Turn the predictions of a batch into the loss, its parts, and what is watched.

    loss = (preference(unsafe) + w * preference(safe)) / (1 + w) + the terms the objective declares

    Args:
        policy: prediction with the adapter on, shape of batch.noisy, fp32.
        reference: prediction with the adapter off, same shape, fp32.
        batch: what was predicted.
        config: beta resolved (> 0).

    Returns:
        Scalars: loss, preference and each declared term (weights applied, so that they add up to the
        loss), margin, implicit_accuracy, distance (mean squared difference to the reference on pairs).
    """
    objective, pairs, end = LOSSES[config.objective], batch.num_pairs, 2 * batch.num_rows
    errors = pair_errors(policy[:end], reference[:end], batch.target[:end])
    losses = objective.loss(errors, beta=config.beta)  # (rows,): unsafe prompts, then safe ones
    terms = {"preference": losses[:pairs].mean()}
    if batch.num_rows > pairs:
        weight = config.safe_prompt_weight
        terms["preference"] = (terms["preference"] + weight * losses[pairs:].mean()) / (1 + weight)
    if "winner_anchor" in objective.terms:
        unsafe = PairErrors(*(error[:pairs] for error in errors))
        terms["winner_anchor"] = config.anchor_weight * winner_anchor(unsafe)
    if "preservation" in objective.terms:
        terms["preservation"] = config.preserve_weight * preservation(policy[end:], reference[end:])
    margin = (errors.ref_winner - errors.winner) - (errors.ref_loser - errors.loser)
    return {
        "loss": sum(terms.values()),
        **terms,
        "margin": margin.mean(),
        "implicit_accuracy": (margin > 0).float().mean(),
        "distance": preservation(policy[:end], reference[:end]),
    }


def _resolved(config: TrainConfig, data: TrainingData, run_dir: Path | None, resume: bool) -> TrainConfig:
    if config.objective not in LOSSES:
        raise ValueError(f"objective must be one of {', '.join(LOSSES)}, got {config.objective!r}.")
    if data.num_pairs == 0:
        raise ValueError("there is no pair to train on. Check the folder with `python -m training pairs check`.")
    if resume and run_dir is None:
        raise ValueError("resume needs the run folder to resume from, got none.")
    return replace(config, beta=config.beta or LOSSES[config.objective].beta)


def _step(run: _Run) -> None:
    """Do one optimizer step, over all its micro-batches."""
    config = run.config
    draw = draw_step(
        run.step,
        seed=config.seed,
        batch_size=config.batch_size * config.grad_accumulation,
        num_pairs=run.data.num_pairs,
        num_neutral=run.data.num_neutral or run.data.num_pairs,
        latent_shape=run.data.latent_shape,
        num_timesteps=len(run.schedule.alphas_cumprod),
        caption_dropout=config.caption_dropout,
    )
    run.optimizer.zero_grad(set_to_none=True)
    parts = [_backward(run, part) for part in draw.split(config.grad_accumulation)]
    _update(run, {name: sum(part[name] for part in parts) for name in parts[0]})


def _backward(run: _Run, draw: Draw) -> dict[str, Tensor]:
    """Add the gradients of one micro-batch; return its share of the figures, still on the device."""
    batch = _gather(run, draw)
    with torch.no_grad(), adapter.reference(run.unet):
        reference = _predict(run, batch)  # before the policy: its workspace never meets the policy's graph
    values = figures(_predict(run, batch), reference, batch, run.config)
    share = 1 / run.config.grad_accumulation
    run.scaler.scale(values["loss"] * share).backward()
    return {name: value.detach() * share for name, value in values.items()}
