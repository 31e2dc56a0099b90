"""Time several ways to do one thing in turn, so that a slow moment of the machine affects them all."""

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(steps: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Time each step `repeats` times, in turn, after a warm-up turn that does not count.

    Returns:
        Seconds by name, in the order of the repeats.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def compare(theirs: list[float], ours: list[float]) -> dict[str, float]:
    """Return the median seconds of theirs, and median and range of the ratio of ours to theirs."""
    ratios = [our_s / their_s for our_s, their_s in zip(ours, theirs, strict=True)]
    return {
        "seconds": statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
    }
