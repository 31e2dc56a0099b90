"""How long a run will take: rows that are timed before the first step, times the rows that it has to run."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import NamedTuple

import torch

from ..experts import adapter
from ..pairs.training_data import Bucket
from ..system.quantities import duration
from .batch import Batch, predict_batch
from .draws import DrawRules
from .plan import Plan, largest_batch
from .progress import Progress
from .run import Run
from .validation import DRAWS

LIMIT_S = 2.0  # nothing is timed that is likely to take longer
SHARE = 0.01  # largest share of the rows of the run that is timed; a run of fewer rows is over soon anyway
ENOUGH_S, REPEATS = 0.3, 3  # shorter measurements are repeated: the first one also chooses kernels
SMALLEST = 8  # smallest side of a crop of a latent; larger sides are multiples of it


class _Seconds(NamedTuple):
    """Time of one row."""

    reference: float  # prediction of the base model
    policy: float  # prediction with the adapter, and its backward pass

    def times(self, factor: float) -> _Seconds:
        return _Seconds(factor * self.reference, factor * self.policy)


class RowCount(NamedTuple):
    """Rows that this process has left to run."""

    with_backward: float
    without_backward: float


def with_expected_time(plan: Plan, run: Run, progress: Progress, held: Iterable[Bucket]) -> Plan:
    """Return the plan with the time that the remaining steps will take, or as it is where that is unknown.

    Rows of the run's data are run as in a step: first a single row, cropped, with a crop that grows as long
    as it is fast; then as many rows as the time allows. The time of a crop is scaled by its operations.
    Weights, gradients and random states stay as they are. The time to read, update and write is left out.

    Args:
        plan: of `plan_run`.
        run: with the plan's `micro_batch`.
        progress: of the run, at the step that it continues from.
        held: buckets of the held-out pairs.
    """
    rows = rows_to_do(run, progress, sum(len(bucket.pairs) for bucket in held))
    max_rows = int(SHARE * rows.with_backward)
    if plan.pair_operations is None or max_rows < 1:
        return plan
    row, timed = _timed_row(run, plan.pair_operations, max_rows)
    expected_s = rows.with_backward * row.policy + rows.without_backward * row.reference
    return plan._replace(expected_s=expected_s, timed=timed)


def rows_to_do(run: Run, progress: Progress, num_held: int) -> RowCount:
    """Count the rows of the remaining steps and of the measurements on `num_held` held-out pairs."""
    config, steps = run.config, run.config.steps - progress.step
    num_pairs = steps * config.batch_size * config.grad_accumulation
    rows_per_pair = 4 if config.safe_prompt_weight > 0 else 2
    kept_per_pair = DrawRules.of(config).num_kept * int(config.preserve_weight > 0)
    led_per_pair = 2 * int(config.anchor_weight > 0)
    num_unknown = num_pairs  # pairs that the base model is run on
    if config.bank:
        num_draws = config.bank * sum(len(bucket.pairs) for bucket in run.data.buckets)
        num_unknown = min(num_pairs, num_draws - len(progress.bank))
    measurements = 1 + math.ceil(steps / config.validate_every)  # one of them runs the base model
    without_backward = num_pairs * (kept_per_pair + led_per_pair) + rows_per_pair * (
        num_unknown + measurements * DRAWS * num_held
    )
    with_backward = num_pairs * (rows_per_pair + kept_per_pair)
    return RowCount(with_backward / run.processes.count, without_backward / run.processes.count)


def _timed_row(run: Run, pair_operations: int, max_rows: int) -> tuple[_Seconds, str]:
    """Time one row; also return what the time is based on."""
    batch = largest_batch(run, run.micro_batch)
    row_operations = pair_operations * batch.num_pairs / len(batch.noisy)
    full_size, likely_s = batch.noisy.shape[2:], 0.0
    for height, width in _crops(*full_size):
        if likely_s > LIMIT_S:
            break
        crop = batch._replace(noisy=batch.noisy[..., :height, :width])
        seconds, operations = _time_rows(run, crop, 1, is_counted=(height, width) != full_size)
        row = seconds.times(row_operations / operations) if operations else seconds
        timed = f"one row at 1/{full_size[0] // height} of the size took {duration(sum(seconds))}"
        likely_s = 4 * sum(seconds)
    else:
        num_rows = max(1, min(len(batch.noisy), max_rows, int(LIMIT_S / sum(row))))
        if num_rows > 1:
            row = _time_rows(run, batch, num_rows)[0].times(1 / num_rows)
        timed = f"{num_rows} rows took {duration(num_rows * sum(row))}"
    return row, timed


def _crops(height: int, width: int) -> list[tuple[int, int]]:
    """Return sizes up to the full size, each about twice the one before."""
    sizes = [(height, width)]
    while min(sizes[0]) >= 2 * SMALLEST:
        sizes.insert(0, tuple(side // 2 // SMALLEST * SMALLEST for side in sizes[0]))
    return sizes


def _time_rows(run: Run, batch: Batch, num_rows: int, *, is_counted: bool = False) -> tuple[_Seconds, int]:
    """Return the shortest time that the first rows of a batch took, and the operations of their policy."""
    from .needs import CountedOperations  # late: it rests on private parts of torch

    rows, factors = list(range(num_rows)), list(run.parameters.values())
    measurements, spent_s = [], 0.0
    while spent_s < ENOUGH_S and len(measurements) < REPEATS:
        run.callbacks.check_cancel()
        start_s = time.perf_counter()
        with torch.no_grad(), adapter.reference(run.unet):
            predict_batch(run, batch, rows).sum().item()  # waits for the device
        middle_s = time.perf_counter()
        with torch.enable_grad(), CountedOperations() if is_counted else nullcontext() as count:
            loss = predict_batch(run, batch, rows).square().mean()
            torch.autograd.grad(loss, factors)[-1].sum().item()
        measurements.append(_Seconds(middle_s - start_s, time.perf_counter() - middle_s))
        spent_s += sum(measurements[-1])
    return min(measurements, key=sum), count.total if is_counted else 0
