"""Several processes that do one job together, each on its share of the same batch or of the same tasks.

`accelerate launch` and torchrun start them and number them through environment variables. Nothing here is
used with a single process, or inside a host application.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
from torch import Tensor, distributed

PATIENCE = timedelta(days=30)  # a process may work hours longer than another; NCCL times out in minutes


class Processes(NamedTuple):
    """The processes of a run and the number of this one; by default a single process.

    Attributes:
        count: number of processes.
        number: of this process, from 0.
        store: key-value store through which they exchange messages; None for a single process.
    """

    count: int = 1
    number: int = 0
    store: distributed.Store | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.number == 0

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, bitwise the same in each.

        Args:
            tensors: fp32, with the same shapes in every process.
        """
        if self.count == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])  # one message instead of hundreds
        distributed.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.reshape(tensor.shape))

    def exchange(self, message: str = "") -> list[str]:
        """Send a message to all processes and wait for theirs; for days if need be, unlike `add_up`.

        Args:
            message: of this process.

        Returns:
            The message of each process, in the order of their numbers; the same in all.
        """
        if self.count == 1:
            return [message]
        turn = self.store.add(f"turns of {self.number}", 1)
        sent = [f"{turn} sent by {number}" for number in range(self.count)]
        received = [f"{turn} received by {number}" for number in range(self.count)]
        self.store.set(sent[self.number], message)
        self.store.wait(sent, PATIENCE)
        messages = [self.store.get(key).decode() for key in sent]
        self.store.set(received[self.number], "")
        if self.is_first:  # the store may live in this process and end with it
            self.store.wait(received, PATIENCE)
        return messages

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Let the first process run the body, such as filling a cache, before the others do."""
        if not self.is_first:
            self.exchange()
        yield
        if self.is_first:
            self.exchange()


ALONE = Processes()


@contextmanager
def launched_processes(patience: timedelta | None = None) -> Iterator[Processes]:
    """Join the processes that `accelerate launch` or torchrun started, if there are several.

    Args:
        patience: how long a process waits for the others in `add_up`, for jobs that add up counts on the CPU
            after hours of unequal work; None for jobs that add up gradients at every step.

    Raises:
        RuntimeError: if this build of torch has no distributed package.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    if not distributed.is_available():
        raise RuntimeError("this build of torch cannot join several processes. Start a single process.")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # the GPU that `cuda` means in this process
    store, number, count = next(distributed.rendezvous("env://"))
    backend = "nccl" if torch.cuda.is_available() and patience is None else "gloo"
    distributed.init_process_group(backend, store=store, rank=number, world_size=count, timeout=patience)
    try:
        yield Processes(count, number, distributed.PrefixStore("messages", store))
    finally:
        distributed.destroy_process_group()
