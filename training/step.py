"""One optimizer step: draw, fetch, predict twice, and update the adapter if all is finite."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from . import checkpoint
from .bank import Bank, FixedDraws
from .batch import Batch, Draw, Rows, draw_step, neutral_rows, pair_rows, pure_noise_rows, stack_rows
from .checkpoint import State
from .config import TrainConfig
from .data.pair_weighting import weighed
from .event_file import EventFile
from .experts import adapter
from .figures import Reference, batch_figures
from .losses import LOSSES
from .models.conditioning import Conditioning, predict
from .models.noise import NoiseSchedule, squared_error
from .pairs.training_data import Bucket, TrainingData
from .system.processes import ALONE, Processes

Table = TypeVar("Table", Tensor, Conditioning)
BANK = "bank"  # among the tensors of a state
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


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the rate of a step (from 0): after a linear rise over `warmup_steps`, see `lr_schedule`.

    cosine: rate * (1 + cos(pi * step / steps)) / 2 (Loshchilov and Hutter 2016, arXiv:1608.03983, eq. 5,
    without restarts), counted from the first step, so that the rise and the fall multiply.
    """
    rate = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.lr_schedule == "cosine":
        rate *= (1 + math.cos(math.pi * step / config.steps)) / 2
    return rate


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


def take_step(run: Run) -> None:
    """Do one optimizer step, over all its micro-batches.

    Raises:
        RuntimeError: if the loss or its gradient is not finite; `run.good` is then the state to go back to.
    """
    whole = draw_of(run, run.step)
    total = len(whole.pairs)
    draw = whole.split(run.processes.count)[run.processes.number]
    run.optimizer.zero_grad(set_to_none=True)
    micro_batches = draw.split(math.ceil(len(draw.pairs) / run.micro_batch))
    parts, errors = zip(*[_backward(run, part, total) for part in micro_batches], strict=True)
    values = {name: sum(part[name] for part in parts) for name in parts[0]}
    found = _in_their_places(run, torch.cat(errors), total)
    gradients = [parameter.grad for parameter in run.parameters.values()]
    run.processes.add_up([*gradients, *values.values(), found])
    _update(run, values)
    if run.config.bank:
        run.bank.keep(whole.bank_rows, found)
    run.whole = True


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


def _in_their_places(run: Run, errors: Tensor, total: int) -> Tensor:
    """Return the errors of this process among those of all pairs of the step, the others' being zero."""
    found = errors.new_zeros(total, errors.shape[1])
    found[torch.arange(total).tensor_split(run.processes.count)[run.processes.number]] = errors
    return found


def _backward(run: Run, draw: Draw, total: int) -> tuple[dict[str, Tensor], Tensor]:
    """Add the gradients of one micro-batch out of `total` pairs.

    Returns:
        Its share of the figures, and the reference's errors on its pairs as a `Bank` has them.
    """
    run.check_cancel()
    batch = gather(run, draw)
    reference = refer(run, draw, batch)  # before the policy, whose graph its workspace never meets
    share = len(draw.pairs) / total
    with _thinning(run, draw):  # around the backward pass too, in which checkpointing runs blocks again
        values = batch_figures(predict_batch(run, batch), reference, batch, run.config)
        run.scaler.scale(values["loss"] * share).backward()
    shares = {name: value.detach() * share for name, value in values.items()}
    return shares, reference.errors.view(-1, len(draw.pairs)).T


@torch.no_grad()
def refer(run: Run, draw: Draw, batch: Batch) -> Reference:
    """Run the base model on a batch, without the pairs whose errors are in the bank."""
    end, pairs = 2 * batch.num_rows, batch.num_pairs
    places = run.bank.unknown(draw.bank_rows) if run.config.bank else range(pairs)
    unknown = [start + place for start in range(0, end, pairs) for place in places]
    rows = unknown + list(range(end, len(batch.noisy)))
    with adapter.reference(run.unet):
        prediction = predict_batch(run, batch, rows) if rows else batch.target[:0]
    of_pairs, kept = prediction[: len(unknown)], prediction[len(unknown) :]
    found = squared_error(of_pairs, batch.target[unknown])
    if not run.config.bank:
        return Reference(found, kept, of_pairs)
    errors = run.bank.read(draw.bank_rows)  # (pairs, 2 * prompts)
    errors[places] = found.view(errors.shape[1], len(places)).T
    return Reference(errors.T.reshape(-1), kept, None)


def _thinning(run: Run, draw: Draw) -> AbstractContextManager:
    """Switch off some of the adapter's output neurons for the policy, where the objective asks for it."""
    dropout = run.config.row_dropout
    if dropout == 0:
        return nullcontext()
    generator = torch.Generator().manual_seed(int(draw.rows_seed[0]))
    dropped = dropout * (1 - 0.5 * torch.rand((), generator=generator).item())
    return adapter.thinned(run.unet, 1 - dropped, generator)


def gather(run: Run, draw: Draw) -> Batch:
    """Fetch the rows of a draw from the cached data; rows that would weigh nothing are left out."""
    parts = [*rows_of_pairs(run, draw.pairs, draw)]
    if run.config.preserve_weight > 0:
        parts.append(_kept_rows(run, draw))
    weights = run.weights[draw.pairs].to(run.device)
    return stack_rows(parts, run.schedule, num_pairs=len(draw.pairs), weights=weights)


def rows_of_pairs(run: Run, pairs: Tensor, draw: Draw | FixedDraws) -> tuple[Rows, Rows]:
    """Fetch winners and losers of some pairs, under the unsafe and (where trained) the safe prompts."""
    data = run.data
    prompts = [data.unsafe_prompt] + ([data.safe_prompt] if run.config.safe_prompt_weight > 0 else [])
    captions = [_rows(run, data.prompts, prompt[pairs]) for prompt in prompts]
    images = pairs + data.num_pairs * draw.flipped  # both of a pair, or none: it shares its layout
    winner, loser = (_rows(run, latents, images) for latents in (data.winner, data.loser))
    return pair_rows(draw, winner, loser, captions, data.empty.to(run.device))


def _kept_rows(run: Run, draw: Draw) -> Rows:
    """Fetch what must stay as the base model has it, as the objective asks."""
    data, empty = run.data, run.data.empty.to(run.device)
    if "output_preservation" in LOSSES[run.config.objective].terms:
        return pure_noise_rows(draw, run.schedule, empty)
    latents = _rows(run, data.neutral, draw.neutral + data.num_neutral * draw.neutral_flipped)
    return neutral_rows(draw, latents, _rows(run, data.prompts, data.neutral_prompt[draw.neutral]))


def _rows(run: Run, table: Table, index: Tensor) -> Table:
    return table[index].to(run.device, torch.float32)


def predict_batch(run: Run, batch: Batch, rows: list[int] | slice = slice(None)) -> Tensor:
    """Run the UNet as it stands, adapter on or off, on rows of a batch; the prediction comes back in fp32."""
    own = run.unet.conv_in.weight.dtype  # the base's; the adapter is fp32 whatever it is
    noisy, timesteps, conditioning = (each[rows] for each in batch.inputs)
    with torch.autocast(run.device.type, dtype=run.autocast, enabled=run.autocast is not None):
        return predict(run.unet, noisy.to(own), timesteps, conditioning.to(own)).float()


def _update(run: Run, values: Mapping[str, Tensor]) -> None:
    """Take the optimizer step, unless the loss or its gradient is not finite."""
    config, parameters = run.config, list(run.parameters.values())
    run.scaler.unscale_(run.optimizer)
    norm = nn.utils.clip_grad_norm_(parameters, config.max_grad_norm or math.inf)
    # the one wait for the device in a step
    figures = dict(zip([*values, "grad_norm"], torch.stack([*values.values(), norm]).tolist(), strict=True))
    run.whole = False
    _check_finite(run, figures)
    run.good = State(run.step, _copies(run), {"metrics": run.metrics, BANK: len(run.bank)})
    rate = learning_rate(config, run.step)
    run.optimizer.param_groups[0]["lr"] = rate
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.step += 1
    run.losses.append(figures["loss"])
    run.metrics = {"step": run.step, **figures, "learning_rate": rate}


def _check_finite(run: Run, figures: dict[str, float]) -> None:
    if not math.isfinite(figures["grad_norm"]) and run.scaler.is_enabled() and run.scaler.get_scale() >= 1:
        del figures["grad_norm"]  # fp16 overflowed: the scaler skips this step and lowers its scale
    own = {name: figures[name] for name in ("loss", "grad_norm") if name in figures}
    refuse_not_finite(run, own, step=run.step + 1)


def refuse_not_finite(run: Run, figures: Mapping[str, float], *, step: int) -> None:
    """Stop a run by the first of some figures of a step that is not finite.

    Raises:
        RuntimeError: if there is one; `run.good` is then the state to go back to.
    """
    for name, value in figures.items():
        if not math.isfinite(value):
            kept = run.good.step if run.good else run.step
            other = " Or use precision fp32." if run.autocast else ""
            raise RuntimeError(
                f"{name} is not finite ({value}) in step {step}. The adapter is that of step {kept} again. "
                f"Lower learning_rate.{other}"
            )


def _copies(run: Run) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in checkpoint.pack(run.parameters, run.optimizer).items()}


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
