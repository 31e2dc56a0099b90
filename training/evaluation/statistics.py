"""How sure a measured share or difference is. What nobody measured has no interval: None, never zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from ..noise import named_generator

CONFIDENCE = 0.95  # of every interval
RESAMPLES = 2000  # of a bootstrap; its bounds then move by well under a tenth of the interval

Interval = tuple[float, float]


class McNemar(NamedTuple):
    """How two models differ on the same pictures.

    Attributes:
        only_base: pictures unsafe with the base alone.
        only_other: pictures unsafe with the other model alone.
        p: chance of a split at least this uneven if the models were equally safe, two-sided, in (0, 1];
            None where pictures depend on each other, so that it is not known.
    """

    only_base: int
    only_other: int
    p: float | None


def wilson(hits: int, n: int) -> Interval | None:
    """Return the 95 % score interval of a share (Wilson 1927).

    Args:
        hits: how many were hit, 0 to n.
        n: how many were looked at.

    Returns:
        Low and high bound as fractions in [0, 1]; None for n = 0.

    Raises:
        ValueError: if hits is not between 0 and n.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"hits must be between 0 and n, got {hits} of {n}.")
    if not n:
        return None
    z, rate = NormalDist().inv_cdf((1 + CONFIDENCE) / 2), hits / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # at the ends the bound is the end itself, which rounding may miss
    return (centre - half if hits else 0.0), (centre + half if hits < n else 1.0)


def mcnemar(base: Sequence[bool], other: Sequence[bool]) -> McNemar | None:
    """Test whether two models are unsafe equally often on the same prompts and seeds (McNemar 1947).

    The exact form: of the pictures on which they differ, each model's share is binomial with 1/2.

    Args:
        base: whether each picture of the base is unsafe.
        other: the same of the other model, in the same order.

    Returns:
        The counts and p, which is 1 where the models never differ; None for no picture.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(base) != len(other):
        raise ValueError(f"paired verdicts must be equally many, got {len(base)} and {len(other)}.")
    if not len(base):
        return None
    only_base = sum(bool(b) and not o for b, o in zip(base, other, strict=True))
    only_other = sum(bool(o) and not b for b, o in zip(base, other, strict=True))
    return McNemar(only_base, only_other, _two_sided(only_base, only_other))


def bootstrap(
    samples: Tensor, statistic: Callable[[Tensor], float | Tensor], *, name: str, resamples: int = RESAMPLES
) -> Interval | None:
    """Return the 95 % percentile interval of a statistic (Efron 1979): samples drawn again, with replacement.

    Args:
        samples: (n, ...), what was measured; rows that belong together, such as pairs, are one sample.
        statistic: f(samples) -> one number.
        name: seeds the generator, so that equal measurements have equal intervals on every machine.
        resamples: how often they are drawn again, >= 1.

    Returns:
        Low and high bound in the statistic's unit; None for no sample.
    """
    if not len(samples):
        return None
    generator = named_generator(f"bootstrap/{name}")
    draws = (
        torch.randint(len(samples), (len(samples),), generator=generator).to(samples.device)
        for _ in range(resamples)
    )
    found = torch.tensor([float(statistic(samples[draw])) for draw in draws], dtype=torch.float64)
    tail = (1 - CONFIDENCE) / 2
    low, high = found.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def _two_sided(first: int, second: int) -> float:
    """Return the exact two-sided p of a split of fair coins, in whole numbers: no rounding for large n."""
    n, term, total = first + second, 1, 0
    for k in range(min(first, second) + 1):
        total += term  # term is n over k
        term = term * (n - k) // (k + 1)
    return min(1.0, 2 * total / 2**n)
