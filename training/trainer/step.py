"""One optimizer step: draw, fetch, run the reference and the policy, form the loss, update the adapter."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ..experts import adapter
from ..models.noise import squared_error
from .bank import Bank, ReferenceErrors
from .batch import Batch, draw_batch, fetch_batch, predict_batch, predicted
from .draws import Draw
from .figures import Reference, batch_figures
from .progress import Progress
from .run import Run


def take_step(run: Run, progress: Progress) -> None:
    """Take one optimizer step, over all of its micro-batches.

    Raises:
        RuntimeError: if the loss or its gradient is not finite.
    """
    draw = draw_batch(run, progress.step)  # noise: (pairs, 4, h, w)
    figures, ref_errors = accumulate_gradients(run, progress, draw)  # scalars, (pairs, 2 * prompts)
    progress.advance(figures, draw.bank_rows, ref_errors)


def accumulate_gradients(run: Run, progress: Progress, draw: Draw) -> tuple[dict[str, Tensor], Tensor]:
    """Leave the gradients of a step in the adapter's factors, summed over micro-batches and processes.

    Args:
        run: whose UNet and pairs are used.
        progress: whose optimizer, scaler and bank are used.
        draw: the pairs of the whole step; each process takes its share of them.

    Returns:
        The figures of the step as scalars, see `batch_figures`, and the base model's errors on its pairs,
        (pairs, 2 * prompts) fp32, see `ReferenceErrors`; both the same in all processes.
    """
    num_pairs = len(draw.pairs)
    progress.optimizer.zero_grad(set_to_none=True)
    share = draw.split(run.processes.count)[run.processes.number]
    micro_batches = share.split(math.ceil(len(share.pairs) / run.micro_batch))
    parts, errors = zip(*[_backward(run, progress, part, num_pairs) for part in micro_batches], strict=True)
    figures = {name: sum(part[name] for part in parts) for name in parts[0]}
    ref_errors = _among_all_pairs(run, torch.cat(errors), num_pairs)  # (num_pairs, 2 * prompts)
    gradients = [_gradient(factor) for factor in run.parameters.values()]
    run.processes.add_up([*gradients, *figures.values(), ref_errors])
    return figures, ref_errors


def _gradient(factor: nn.Parameter) -> Tensor:
    """Return the gradient of a factor, zero where nothing reads its layer, as in some last blocks."""
    if factor.grad is None:
        factor.grad = torch.zeros_like(factor)
    return factor.grad


def _backward(run: Run, progress: Progress, draw: Draw, num_pairs: int) -> tuple[dict[str, Tensor], Tensor]:
    """Add the gradients of one micro-batch of a step of `num_pairs` pairs.

    Returns:
        Its share of the figures, and the base model's errors on its pairs, (pairs, 2 * prompts).
    """
    run.callbacks.check_cancel()
    share = len(draw.pairs) / num_pairs
    batch = fetch_batch(run, draw)  # noisy: (2 * prompts * pairs + kept, 4, h, w)
    # the reference comes first, while no graph of the policy is in memory beside it
    reference = run_reference(run, progress.bank, draw, batch)  # errors: (pairs, 2 * prompts)
    with _row_dropout(run, draw):  # the backward pass too, where checkpointing runs blocks again
        # the policy's prediction, (2 * prompts * pairs + kept, 4, h, w), is freed before the backward pass
        figures = batch_figures(predict_batch(run, batch), reference, batch, run.config)  # scalars
        progress.scaler.scale(figures["loss"] * share).backward()
    return {name: value.detach() * share for name, value in figures.items()}, reference.errors.by_pair


@torch.no_grad()
def run_reference(run: Run, bank: Bank, draw: Draw, batch: Batch) -> Reference:
    """Run the base model on a batch, without the pairs whose errors are in the bank.

    Args:
        run: whose UNet is run, with the adapter off.
        bank: used where the option `bank` is set.
        draw: of the batch.
        batch: what `fetch_batch` returned for the draw.
    """
    num_pairs, num_prompts, end = batch.num_pairs, batch.num_rows // batch.num_pairs, 2 * batch.num_rows
    places = bank.unknown(draw.bank_rows) if run.config.bank else range(num_pairs)
    pair_rows = [start + place for start in range(0, end, num_pairs) for place in places]
    rows = pair_rows + list(range(end, len(batch.noisy)))
    with adapter.reference(run.unet):
        prediction = predict_batch(run, batch, rows) if rows else batch.target[:0]
        lead = _lead_target(run, batch)
    of_pairs, kept = prediction.split([len(pair_rows), len(rows) - len(pair_rows)])
    errors = squared_error(of_pairs, batch.target[pair_rows])  # (2 * prompts * places,)
    computed = ReferenceErrors.of_rows(errors, num_prompts)
    if not run.config.bank:
        return Reference(computed, kept, of_pairs, lead)
    ref_errors = bank.read(draw.bank_rows)
    ref_errors.by_pair[places] = computed.by_pair
    return Reference(ref_errors, kept, None, lead)


def _lead_target(run: Run, batch: Batch) -> Tensor | None:
    """Return where the unsafe prompts are led, (2 * pairs, 4, h, w); to be called with the adapter off."""
    if batch.lead is None:
        return None
    rows = batch.unsafe_rows
    under_safe = predicted(run, batch.noisy[rows], batch.timesteps[rows], batch.lead.captions)
    return torch.where(batch.lead.follows[:, None, None, None], under_safe, batch.target[rows])


def _row_dropout(run: Run, draw: Draw) -> AbstractContextManager:
    """Switch off some of the adapter's output neurons, where the objective prepares experts for a merge."""
    most_dropped = run.config.row_dropout
    if most_dropped == 0:
        return nullcontext()
    generator = torch.Generator().manual_seed(int(draw.rows_seed[0]))
    dropped = most_dropped * (1 - 0.5 * torch.rand((), generator=generator).item())
    return adapter.thinned(run.unet, 1 - dropped, generator)


def _among_all_pairs(run: Run, errors: Tensor, num_pairs: int) -> Tensor:
    """Place the errors of this process's pairs among those of all pairs of the step; the others are zero."""
    all_errors = errors.new_zeros(num_pairs, errors.shape[1])
    share = torch.arange(num_pairs).tensor_split(run.processes.count)[run.processes.number]
    all_errors[share] = errors
    return all_errors
