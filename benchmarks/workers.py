"""Independent work: one process with one thread per core, best for small networks, or here in turn."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

import torch


def run_here(work: Callable[..., Any], calls: Iterable[tuple]) -> Iterator[tuple[tuple, Any]]:
    """Yield (arguments, result) of each call, one after the other in this process."""
    return ((arguments, work(*arguments)) for arguments in calls)


def run_all(work: Callable[..., Any], calls: Iterable[tuple]) -> Iterator[tuple[tuple, Any]]:
    """Yield (arguments, result) of each call as it ends.

    Args:
        work: function of a module.
        calls: positional arguments of each call.
    """
    context = get_context("spawn")  # a fork of a process whose threads are running may hang
    with ProcessPoolExecutor(os.cpu_count(), context, torch.set_num_threads, (1,)) as pool:
        waiting = {pool.submit(work, *arguments): arguments for arguments in calls}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
