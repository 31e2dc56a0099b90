"""How long a run will take, from some rows that are run as in a step, and timed, before the first step."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import NamedTuple

import torch

from .batch import Batch
from .experts import adapter
from .pairs.training_data import Bucket
from .preflight import Plan, largest_batch
from .step import Run, predict_batch
from .system.quantities import duration
from .validation import DRAWS

LIMIT_S = 2.0  # nothing is run that is likely to take longer
SHARE = 0.01  # of the rows of the run that are run for this at most; a run of fewer is over before long
ENOUGH_S, REPEATS = 0.3, 3  # what was over sooner is repeated: the first time, kernels are chosen
SMALLEST = 8  # side of a crop of a latent, and a step of it


class _Seconds(NamedTuple):
    """Of one row: the base model's prediction, and the policy's with the backward pass."""

    reference: float
    policy: float

    def times(self, factor: float) -> _Seconds:
        return _Seconds(factor * self.reference, factor * self.policy)


def with_expected_time(run: Run, plan: Plan, held: Iterable[Bucket]) -> Plan:
    """Return the plan with the time that the steps to be done will take; without it, where it is unknown.

    Rows of the run's own data are run as in a step: a single one, cropped first, the crop growing as long as
    it is over soon, then as many as the time allows. A crop's seconds count by its operations. Weights,
    gradients and random states stay as they are. Not in it are reading, updating and writing.

    Args:
        run: at the step it goes on from, as the plan says.
        plan: of `plan_run`.
        held: buckets of the held-out pairs.
    """
    policy, reference = _rows_to_do(run, sum(len(bucket.pairs) for bucket in held))
    at_most = int(SHARE * policy)
    if plan.pair_operations is None or at_most < 1:
        return plan
    row, timed = _row(run, plan.pair_operations, at_most)
    return plan._replace(expected_s=policy * row.policy + reference * row.reference, timed=timed)


def _rows_to_do(run: Run, num_held: int) -> tuple[float, float]:
    """Count the rows that this process runs with a backward pass, and those it runs without one."""
    config, steps = run.config, run.config.steps - run.step
    pairs = steps * config.batch_size * config.grad_accumulation
    of_pair, kept = (4 if config.safe_prompt_weight > 0 else 2), int(config.preserve_weight > 0)
    unknown = pairs
    if config.bank:
        all_draws = config.bank * sum(len(bucket.pairs) for bucket in run.data.buckets)
        unknown = min(pairs, all_draws - len(run.bank))
    measurements = 1 + math.ceil(steps / config.validate_every)  # one of the base model
    alone = pairs * kept + of_pair * (unknown + measurements * DRAWS * num_held)
    return pairs * (of_pair + kept) / run.processes.count, alone / run.processes.count


def _row(run: Run, pair_operations: int, at_most: int) -> tuple[_Seconds, str]:
    """Time a row, and say what that rests on."""
    batch = largest_batch(run, run.micro_batch)
    operations = pair_operations * batch.num_pairs / len(batch.noisy)
    whole, likely_s = batch.noisy.shape[2:], 0.0
    for height, width in _crops(*whole):
        if likely_s > LIMIT_S:
            break
        part = batch._replace(noisy=batch.noisy[..., :height, :width])
        seconds, own_operations = _run_rows(run, part, 1, counted=(height, width) != whole)
        row = seconds.times(operations / own_operations) if own_operations else seconds
        timed = f"one row at 1/{whole[0] // height} of the size took {duration(sum(seconds))}"
        likely_s = 4 * sum(seconds)
    else:
        rows = max(1, min(len(batch.noisy), at_most, int(LIMIT_S / sum(row))))
        if rows > 1:
            row = _run_rows(run, batch, rows)[0].times(1 / rows)
        timed = f"{rows} rows took {duration(rows * sum(row))}"
    return row, timed


def _crops(height: int, width: int) -> list[tuple[int, int]]:
    """Return sizes up to the whole, each about twice the one before."""
    sizes = [(height, width)]
    while min(sizes[0]) >= 2 * SMALLEST:
        sizes.insert(0, tuple(side // 2 // SMALLEST * SMALLEST for side in sizes[0]))
    return sizes


def _run_rows(run: Run, batch: Batch, num_rows: int, *, counted: bool = False) -> tuple[_Seconds, int]:
    """Return the least seconds that the first rows of a batch took, and the operations of their policy."""
    from .needs import CountedOperations  # late, as in the preflight

    rows, parameters = list(range(num_rows)), list(run.parameters.values())
    found, spent_s = [], 0.0
    while spent_s < ENOUGH_S and len(found) < REPEATS:
        run.check_cancel()
        start_s = time.perf_counter()
        with torch.no_grad(), adapter.reference(run.unet):
            predict_batch(run, batch, rows).sum().item()  # waits for the device
        middle_s = time.perf_counter()
        with torch.enable_grad(), CountedOperations() if counted else nullcontext() as count:
            loss = predict_batch(run, batch, rows).square().mean()
            torch.autograd.grad(loss, parameters)[-1].sum().item()
        found.append(_Seconds(middle_s - start_s, time.perf_counter() - middle_s))
        spent_s += sum(found[-1])
    return min(found, key=sum), count.total if counted else 0
