"""One optimizer step: draw, fetch, predict twice, and update the adapter if all is finite."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from ..experts import adapter
from ..models.conditioning import predict
from ..models.noise import squared_error
from . import state as checkpoint
from .batch import Batch, gather
from .draws import Draw
from .figures import Reference, batch_figures
from .run import Run, draw_of
from .state import BANK, State


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the rate of a step (from 0): after a linear rise over `warmup_steps`, see `lr_schedule`.

    cosine: rate * (1 + cos(pi * step / steps)) / 2 (Loshchilov and Hutter 2016, arXiv:1608.03983, eq. 5,
    without restarts), counted from the first step, so that the rise and the fall multiply.
    """
    rate = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.lr_schedule == "cosine":
        rate *= (1 + math.cos(math.pi * step / config.steps)) / 2
    return rate


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
