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

PATIENCE = timedelta(days=30)  # one may encode or search hours longer; NCCL itself gives up in minutes


class Processes(NamedTuple):
    """The processes of a run and which of them this is; by default it is alone.

    Attributes:
        count: how many there are.
        number: of this one, from 0.
        store: where they leave each other words, see `exchange`; None for one alone.
    """

    count: int = 1
    number: int = 0
    store: distributed.Store | None = None

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

    def exchange(self, words: str = "") -> list[str]:
        """Wait until every process has said something; for days if need be, unlike `add_up`.

        Args:
            words: of this process.

        Returns:
            What each said, in the order of their numbers; the same in all.
        """
        if self.count == 1:
            return [words]
        turn = self.store.add(f"turns of {self.number}", 1)
        said, read = ([f"{turn} {what} by {each}" for each in range(self.count)] for what in ("said", "read"))
        self.store.set(said[self.number], words)
        self.store.wait(said, PATIENCE)
        answers = [self.store.get(key).decode() for key in said]
        self.store.set(read[self.number], "")
        if self.is_first:  # the store may live in it and end with it
            self.store.wait(read, PATIENCE)
        return answers

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Let the others wait until the first has done what is inside, such as filling a cache."""
        if not self.is_first:
            self.exchange()
        yield
        if self.is_first:
            self.exchange()


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
    store, number, count = next(distributed.rendezvous("env://"))
    backend = "nccl" if torch.cuda.is_available() and patience is None else "gloo"
    distributed.init_process_group(backend, store=store, rank=number, world_size=count, timeout=patience)
    try:
        yield Processes(count, number, distributed.PrefixStore("alignguard", store))
    finally:
        distributed.destroy_process_group()
