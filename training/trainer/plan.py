"""The plan of a run: how many pairs fit into memory at once, found before the first step."""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ..models.conditioning import Conditioning
from ..models.network import MODES, set_checkpointing
from ..system.quantities import data_size, duration
from .batch import Batch, draw_batch, fetch_batch, predict_batch
from .draws import Draw
from .run import Run

if TYPE_CHECKING:
    from .needs import Needs

log = logging.getLogger(__name__)

_CGROUP = Path("/sys/fs/cgroup")  # Linux: a container may have less memory than the machine
USABLE = 0.9  # share of the free bytes: kernels need workspace, and Windows swaps a full GPU's memory to RAM
_KNOWN_NEEDS: dict[str, Needs] = {}  # hash of shapes -> needs; counting them again takes seconds
_COPIES = 6  # of the adapter: gradient, two moments, and the last good state of the factors and moments


class Plan(NamedTuple):
    """How the pairs of a step are run; the effective batch is the same for every plan.

    Attributes:
        micro_batch: pairs in memory at once.
        checkpointing: one of `models.network.MODES`.
        weights_bytes: of the base model, in memory already.
        peak_bytes: expected peak, the weights included; None: not computed.
        free_bytes: free memory, not counting the weights; None: not asked for.
        pair_operations: multiplications plus additions of the forward and backward pass of one pair; None:
            not computed.
        expected_s: time for the remaining steps, see `with_expected_time`; None: not measured.
        timed: text that says what `expected_s` is based on.
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
            peak, weights = data_size(self.peak_bytes), data_size(self.weights_bytes)
            limit = data_size(self.weights_bytes + self.free_bytes)
            memory = f"{peak} expected of {limit}, {weights} of weights included"
        if self.expected_s is not None:
            time = f"about {duration(self.expected_s)} expected ({self.timed})"
        return f"{self.micro_batch} pairs at once, checkpointing {self.checkpointing}; {memory}; {time}"


def plan_run(run: Run, available_bytes: int | None) -> Plan:
    """Choose the pairs per micro-batch and the checkpointing, and set the latter on the UNet.

    The plan takes the first mode of checkpointing under which one pair fits, and as many pairs at once as
    then fit: splitting a batch costs almost nothing, checkpointing 1.2 to 1.35 times the step. Bytes are
    computed from the UNet and the data of the run, see `needs_of`.

    Args:
        run: before its first step, with `micro_batch` as large as it may become.
        available_bytes: what training may take beyond what is allocated; None: the options are taken as
            they are, unchecked.

    Raises:
        RuntimeError: if one pair does not fit under any mode that the options allow.
    """
    asked = run.config.checkpointing
    modes = MODES if asked == "auto" else (asked,)
    weights = _weights_bytes(run)
    unchecked = Plan(run.micro_batch, modes[0], weights)
    if available_bytes is None:
        set_checkpointing(run.unet, unchecked.checkpointing)
        return unchecked
    fixed = _COPIES * sum(factor.nbytes for factor in run.parameters.values())
    for mode in modes:
        set_checkpointing(run.unet, mode)
        needs = pair_needs(run)
        if needs is None:
            set_checkpointing(run.unet, unchecked.checkpointing)
            return unchecked
        num_fitting = int((USABLE * available_bytes - fixed) // needs.peak_bytes)
        if num_fitting >= 1:
            pairs = min(run.micro_batch, num_fitting)
            peak = weights + fixed + pairs * needs.peak_bytes
            return Plan(pairs, mode, weights, peak, available_bytes, needs.operations)
    raise RuntimeError(
        f"one pair needs {data_size(fixed + needs.peak_bytes)} beside the weights with checkpointing {mode}, "
        f"and {data_size(int(USABLE * available_bytes))} can be used on {run.device}. Lower resolution, set "
        "checkpointing to auto and precision to auto or bf16, or close other programs that use the memory."
    )


def pair_needs(run: Run) -> Needs | None:
    """Compute what one pair's forward and backward pass needs; None where torch cannot follow the shapes."""
    batch = largest_batch(run, 1)
    shapes = _shapes_of(run, batch)
    if shapes in _KNOWN_NEEDS:
        return _KNOWN_NEEDS[shapes]

    def one_pair(as_fake: Callable[[Tensor], Tensor]) -> None:
        fake_batch = Batch(*(_replaced(field, as_fake) for field in batch))
        with torch.enable_grad():
            loss = predict_batch(run, fake_batch).square().mean()
            torch.autograd.grad(loss, list(run.parameters.values()), allow_unused=True)

    try:
        from .needs import needs_of  # late: it rests on private parts of torch

        needs = _KNOWN_NEEDS[shapes] = needs_of(one_pair)
    except (ImportError, RuntimeError, TypeError, AttributeError) as error:
        log.warning("could not compute the memory that training needs (%s); starting without a check", error)
        return None
    return needs


def _shapes_of(run: Run, batch: Batch) -> str:
    """Hash what the needs of a pair depend on: network, adapter, checkpointing, types and shapes."""
    inputs = [field.tensors if isinstance(field, Conditioning) else (field,) for field in batch]
    tensors = [*run.unet.state_dict(keep_vars=True).values(), *itertools.chain(*inputs)]
    facts = (
        str(run.unet),
        [getattr(m, "gradient_checkpointing", "forward" in vars(m)) for m in run.unet.modules()],
        [(tuple(x.shape), x.dtype, x.requires_grad) for x in tensors if isinstance(x, Tensor)],
        (run.autocast, run.device),
    )
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def largest_batch(run: Run, num_pairs: int) -> Batch:
    """Fetch the first pairs of those with the largest images, without what only the base model runs on.

    At most the pairs of one step.
    """
    largest = max(run.data.buckets, key=lambda bucket: math.prod(bucket.latent_shape))
    draw = draw_batch(run, 0, [largest])
    return fetch_batch(run, Draw(*(field[:num_pairs] for field in draw)))._replace(lead=None)


def place_unet(unet: nn.Module, device: torch.device, dtype: torch.dtype | None) -> nn.Module:
    """Move a UNet to the device it is trained on, in the type it is trained in, if its weights fit there.

    Args:
        unet: changed in place.
        device: to move to.
        dtype: of the weights after the move; None keeps their type.

    Raises:
        RuntimeError: if the weights do not fit; nothing is moved then.
    """
    is_elsewhere = next(unet.parameters()).device.type != device.type
    free = free_bytes(device) if is_elsewhere else None
    needed = sum(weight.numel() * (dtype or weight.dtype).itemsize for weight in unet.parameters())
    if free is not None and needed > USABLE * free:
        raise RuntimeError(
            f"the weights of the UNet need {data_size(needed)}, and {data_size(int(USABLE * free))} can be "
            f"used on {device}. Set precision to auto or bf16, or close other programs that use the memory."
        )
    # not diffusers' `to`, which warns about modules to keep in fp32 even where there are none
    return nn.Module.to(unet, device=device, dtype=dtype)


def _weights_bytes(run: Run) -> int:
    factors = {id(factor) for factor in run.parameters.values()}
    return sum(weight.nbytes for weight in run.unet.parameters() if id(weight) not in factors)


def _replaced(field: Any, as_fake: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(field, Conditioning):
        return field.map_tensors(as_fake)
    return as_fake(field) if isinstance(field, Tensor) else field


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes that a device can still give to this process; None where the device cannot say.

    On a GPU, memory that torch holds in reserve counts as free. On the CPU it is this process's share of
    the RAM that is available without swapping.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    if device.type == "cpu":
        import psutil  # comes with ComfyUI and with peft; late, because only training needs it

        num_sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # processes that torchrun started here
        return int(min(psutil.virtual_memory().available, _free_in_container()) // num_sharing)
    return None


def _free_in_container() -> float:
    try:
        limit, used = ((_CGROUP / name).read_text() for name in ("memory.max", "memory.current"))
        cache = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return int(limit) - int(used) + int(cache["inactive_file"])  # the kernel frees this cache on demand
    except (OSError, ValueError, KeyError):  # no container, or no limit ("max")
        return float("inf")
