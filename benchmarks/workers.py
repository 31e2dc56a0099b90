"""Run independent work here or in one single-threaded process per core, which is best for small networks."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

import torch


def run_here(work: Callable[..., Any], calls: Iterable[tuple]) -> Iterator[tuple[tuple, Any]]:
    """Yield (arguments, result) of each call, in order, computed in this process."""
    return ((arguments, work(*arguments)) for arguments in calls)


def run_all(work: Callable[..., Any], calls: Iterable[tuple]) -> Iterator[tuple[tuple, Any]]:
    """Yield (arguments, result) of each call when it ends, computed on all cores.

    Args:
        work: function at the top level of a module, so that other processes can import it.
        calls: positional arguments of each call.
    """
    context = get_context("spawn")  # forking a process with running threads may hang
    with ProcessPoolExecutor(os.cpu_count(), context, torch.set_num_threads, (1,)) as pool:
        waiting = {pool.submit(work, *arguments): arguments for arguments in calls}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
