"""Before the first step: find out what fits into memory, say so, and refuse what cannot fit."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..experts import adapter
from ..models.conditioning import Conditioning
from ..pairs.training_data import Bucket
from ..system.quantities import duration
from .batch import Batch, gather
from .draws import Draw
from .memory import MODES, readable, set_checkpointing
from .memory import free_bytes as free_on
from .run import Run, draw_of
from .step import predict_batch
from .validation import DRAWS

if TYPE_CHECKING:
    from .memory import Needs


log = logging.getLogger(__name__)

USABLE = 0.9  # of what is free: kernels need workspace, and Windows swaps a full GPU's memory to RAM
_COPIES = 6  # of the adapter: gradient, two moments, and the last good state of factors and moments


class Plan(NamedTuple):
    """How the pairs of a step are run; the effective batch is the same for every plan.

    Attributes:
        micro_batch: pairs in memory at once.
        checkpointing: a mode of `checkpointing.MODES`.
        weights_bytes: of the base model, in memory already.
        peak_bytes: expected peak, the weights included; None where it was not computed.
        free_bytes: what was free beside the weights; None where it was not asked.
        pair_operations: multiplications and additions of a pair's forward and backward pass, likewise.
        expected_s: time for the steps to be done, see `expected_time`; None where it was not measured.
        timed: what that rests on, for people.
    """

    micro_batch: int
    checkpointing: str
    weights_bytes: int = 0
    peak_bytes: int | None = None
    free_bytes: int | None = None
    pair_operations: int | None = None
    expected_s: float | None = None
    timed: str = ""

    def text(self) -> str:
        """Return the plan as one line for people."""
        memory, time = "memory not computed", "time not measured"
        if self.peak_bytes is not None:
            peak, weights = readable(self.peak_bytes), readable(self.weights_bytes)
            most = readable(self.weights_bytes + self.free_bytes)
            memory = f"{peak} expected of {most}, {weights} of weights included"
        if self.expected_s is not None:
            time = f"about {duration(self.expected_s)} expected ({self.timed})"
        return f"{self.micro_batch} pairs at once, checkpointing {self.checkpointing}; {memory}; {time}"


def place_unet(unet: nn.Module, device: torch.device, dtype: torch.dtype | None) -> nn.Module:
    """Move a UNet to where it is trained, in the type it is trained in, unless its weights do not fit there.

    Args:
        unet: changed in place.
        device: to move to.
        dtype: of its weights then; None keeps theirs.

    Raises:
        RuntimeError: if they do not fit, before anything is moved.
    """
    own = next(unet.parameters())
    free = free_on(device) if own.device.type != device.type else None
    needed = sum(weight.numel() * (dtype or weight.dtype).itemsize for weight in unet.parameters())
    if free is not None and needed > USABLE * free:
        raise RuntimeError(
            f"the weights of the UNet need {readable(needed)}, and {readable(int(USABLE * free))} can be "
            f"used on {device}. Set precision to auto or bf16, or close what else uses the memory."
        )
    # not by diffusers' own `to`, which warns of modules to keep in fp32 even where there are none
    return nn.Module.to(unet, device=device, dtype=dtype)


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
    weights = _weights_bytes(run)
    if free_bytes is None:
        return _chosen(run, Plan(wanted, modes[0], weights))
    fixed = _COPIES * sum(parameter.nbytes for parameter in run.parameters.values())
    for mode in modes:
        set_checkpointing(run.unet, mode)
        needs = pair_needs(run)
        if needs is None:
            return _chosen(run, Plan(wanted, modes[0], weights))
        fitting = int((USABLE * free_bytes - fixed) // needs.peak_bytes)
        if fitting >= 1:
            pairs = min(wanted, fitting)
            peak = weights + fixed + pairs * needs.peak_bytes
            return _chosen(run, Plan(pairs, mode, weights, peak, free_bytes, needs.operations))
    raise RuntimeError(
        f"one pair needs {readable(fixed + needs.peak_bytes)} beside the weights with checkpointing {mode}, "
        f"and {readable(int(USABLE * free_bytes))} can be used on {run.device}. Lower resolution, set "
        "checkpointing to auto and precision to auto or bf16, or close what else uses the memory."
    )


def pair_needs(run: Run) -> Needs | None:
    """Compute what one pair's forward and backward pass needs; None where torch cannot follow the shapes."""
    batch = largest_batch(run, 1)

    def one_pair(fake: Callable[[Tensor], Tensor]) -> None:
        rows = Batch(*(_stood_in(value, fake) for value in batch))
        with torch.enable_grad():
            loss = predict_batch(run, rows).square().mean()
            torch.autograd.grad(loss, list(run.parameters.values()))

    try:
        from .memory import needs_of  # stands on a private part of torch, which may change

        return needs_of(one_pair)
    except (ImportError, RuntimeError, TypeError, AttributeError) as error:
        log.warning("the memory training needs could not be computed (%s); it starts without a check", error)
        return None


def largest_batch(run: Run, num_pairs: int) -> Batch:
    """Fetch the first pairs of those whose pictures are largest; at most a step's are there."""
    largest = max(run.data.buckets, key=lambda bucket: math.prod(bucket.latent_shape))
    draw = draw_of(run, 0, [largest])
    return gather(run, Draw(*(field[:num_pairs] for field in draw)))


def _weights_bytes(run: Run) -> int:
    own = {id(parameter) for parameter in run.parameters.values()}
    return sum(weight.nbytes for weight in run.unet.parameters() if id(weight) not in own)


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
    from .memory import CountedOperations  # late, as in the preflight

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
