"""Several processes that train one expert together, each on its share of the same batch, or attack a model.

`accelerate launch` and torchrun start them and say through the environment who is who. Nothing of this is
used inside a host such as ComfyUI, nor where there is one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
from torch import Tensor, distributed


class Processes(NamedTuple):
    """The processes of a run and which of them this is; by default it is alone."""

    count: int = 1
    number: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.number == 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, bit for bit the same in each.

        Args:
            tensors: fp32, of the same shapes in every process.
        """
        if self.count == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])  # one message instead of hundreds
        distributed.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.reshape(tensor.shape))

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Let the others wait until the first has done what is inside, such as filling a cache."""
        if self.count > 1 and not self.is_first:
            distributed.barrier()
        yield
        if self.count > 1 and self.is_first:
            distributed.barrier()


ALONE = Processes()


@contextmanager
def launched_processes(patience: timedelta | None = None) -> Iterator[Processes]:
    """Join the processes that `accelerate launch` or torchrun started, if it started several.

    Args:
        patience: how long one waits for the others, where they add up counts on the CPU after hours of work
            that is not the same for each; None: they add up gradients at every step.

    Raises:
        RuntimeError: if this build of torch has no distributed package.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    if not distributed.is_available():
        raise RuntimeError("this build of torch cannot join several processes. Start one without them.")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # what `cuda` means in this process
    on_gpu = torch.cuda.is_available() and patience is None
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=patience)
    try:
        yield Processes(count, distributed.get_rank())
    finally:
        distributed.destroy_process_group()
