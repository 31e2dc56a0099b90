"""Confidence intervals and tests of shares, means and differences; None, never zero, without samples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.noise import named_generator

CONFIDENCE = 0.95  # of every interval
FEWEST = 5  # samples for the interval of a mean; with fewer it is too wide to be useful
RESAMPLES = 2000  # of a bootstrap; the bounds then vary by well under a tenth of the interval

Interval = tuple[float, float]


class SignTest(NamedTuple):
    """Comparison of two models on the same pictures.

    Attributes:
        only_base: pictures that are unsafe only with the base.
        only_other: pictures that are unsafe only with the other model.
        fewer: prompts for which the other model has fewer unsafe pictures than the base.
        more: prompts for which it has more.
        p: two-sided p-value: probability of a split of the prompts at least this uneven if the models were
            equally safe, in (0, 1].
    """

    only_base: int
    only_other: int
    fewer: int
    more: int
    p: float


def wilson(hits: int, n: int) -> Interval | None:
    """Return the 95 % score interval of a share (Wilson 1927).

    Args:
        hits: number of hits, 0 to n.
        n: number of samples.

    Returns:
        Lower and upper bound, fractions in [0, 1]; None for n = 0.

    Raises:
        ValueError: if hits is not between 0 and n.
    """
    if not 0 <= hits <= n:
        raise ValueError(f"hits must be between 0 and n, got {hits} of {n}.")
    if not n:
        return None
    return _wilson(hits / n, n)


def share_interval(unsafe: Sequence[bool], prompts: Sequence[Hashable]) -> Interval | None:
    """Return the 95 % interval of the share of unsafe pictures, with several pictures per prompt.

    This is Wilson's interval with the number of prompts as n. Pictures of one prompt are similar, at most
    equal, so their unsafe share varies between prompts with a variance of at most p (1 - p), as a single
    picture does. The interval may be wider than necessary, but never narrower. With one picture per prompt
    it equals Wilson's. If prompts have different numbers of pictures, n is the effective sample size
    (Kish 1965).

    Args:
        unsafe: whether each picture is unsafe.
        prompts: prompt of each picture.

    Returns:
        As `wilson`; None without pictures.
    """
    if not unsafe:
        return None
    sizes = Counter(prompts).values()
    return _wilson(sum(unsafe) / len(unsafe), len(unsafe) ** 2 / sum(size * size for size in sizes))


def mean_interval(values: Sequence[float], prompts: Sequence[Hashable] | None = None) -> Interval | None:
    """Return the 95 % interval of a mean (Student 1908), with prompts as the independent samples.

    With equally many values per prompt it is the interval of the prompts' means, otherwise that of the ratio
    of two means (Cochran 1977, section 6.3). It is exact for normal samples. For skewed ones the coverage is
    lower: 0.82 to 0.92 in simulations with 5 to 20 log-normal or exponential samples.

    Args:
        values: measured values.
        prompts: prompt of each value; None: the values are independent.

    Returns:
        Lower and upper bound in the unit of the values; None for fewer than `FEWEST` prompts.
    """
    prompts = range(len(values)) if prompts is None else prompts
    sizes = Counter(prompts)
    if len(sizes) < FEWEST:
        return None
    mean = sum(values) / len(values)  # not fsum, which refuses inf and -inf
    deviations = dict.fromkeys(sizes, 0.0)
    for value, prompt in zip(values, prompts, strict=True):
        deviations[prompt] += value - mean
    squares = sum(deviation * deviation for deviation in deviations.values())
    spread = math.sqrt(squares * len(sizes) / (len(sizes) - 1)) / len(values)
    half = _student(len(sizes) - 1) * spread
    return mean - half, mean + half


def sign_test(
    base: Sequence[bool], other: Sequence[bool], prompts: Sequence[Hashable] | None = None
) -> SignTest | None:
    """Test whether two models are unsafe equally often on the same prompts and seeds.

    This is the exact sign test over prompts (Dixon and Mood 1946): among the prompts for which the models
    differ in the number of unsafe pictures, the number in favour of one model is binomial with 1/2. Prompts
    are independent trials, pictures of one prompt are not. With one picture per prompt it is McNemar's exact
    test (1947).

    Args:
        base: whether each picture of the base is unsafe.
        other: the same for the other model, in the same order.
        prompts: prompt of each picture; None: all prompts are different.

    Returns:
        The counts and p, which is 1 if no prompt differs; None without pictures.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(base) != len(other):
        raise ValueError(f"paired verdicts must be equal in number, got {len(base)} and {len(other)}.")
    if not len(base):
        return None
    only_base = sum(bool(b) and not o for b, o in zip(base, other, strict=True))
    only_other = sum(bool(o) and not b for b, o in zip(base, other, strict=True))
    change: Counter[Hashable] = Counter()  # of the number of unsafe pictures, by prompt
    for b, o, prompt in zip(base, other, range(len(base)) if prompts is None else prompts, strict=True):
        change[prompt] += bool(o) - bool(b)
    fewer = sum(count < 0 for count in change.values())
    more = sum(count > 0 for count in change.values())
    return SignTest(only_base, only_other, fewer, more, _two_sided(fewer, more))


def bootstrap(
    samples: Tensor, statistic: Callable[[Tensor], float | Tensor], *, name: str, resamples: int = RESAMPLES
) -> Interval | None:
    """Return the 95 % percentile bootstrap interval of a statistic (Efron 1979).

    Args:
        samples: (n, ...), measured values; values that belong together, such as pairs, form one sample.
        statistic: f(samples) -> one number.
        name: seeds the generator, so that equal measurements have equal intervals on every machine.
        resamples: number of resamples, drawn with replacement, >= 1.

    Returns:
        Lower and upper bound in the statistic's unit; None without samples.
    """
    if not len(samples):
        return None
    generator = named_generator(f"bootstrap/{name}")
    draws = (
        torch.randint(len(samples), (len(samples),), generator=generator).to(samples.device)
        for _ in range(resamples)
    )
    values = torch.tensor([float(statistic(samples[draw])) for draw in draws], dtype=torch.float64)
    tail = (1 - CONFIDENCE) / 2
    low, high = values.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def _wilson(rate: float, n: float) -> Interval:
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # at rates of 0 and 1 the rate itself is the bound, which rounding could miss
    return (centre - half if rate > 0 else 0.0), (centre + half if rate < 1 else 1.0)


def _student(dof: int) -> float:
    """Return the two-sided quantile of Student's t, with a relative error below 3e-4 for dof >= 4.

    Cornish-Fisher expansion (Abramowitz and Stegun 1964, 26.7.5).
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / dof**power for power, term in enumerate(terms))


def _two_sided(first: int, second: int) -> float:
    """Return the exact two-sided p-value of a split of fair coins, in integers to avoid rounding."""
    n, term, total = first + second, 1, 0
    for k in range(min(first, second) + 1):
        total += term  # term is the binomial coefficient of n and k
        term = term * (n - k) // (k + 1)
    return min(1.0, 2 * total / 2**n)


def cohens_kappa(counts: Mapping[tuple[bool, bool], int]) -> float | None:
    """Return the agreement of two judges beyond chance (Cohen 1960), at most 1.

    Args:
        counts: (what the first says, what the second says) -> number.

    Returns:
        None if there is nothing to compare, or both say the same of everything.
    """
    total = sum(counts.values())
    if not total:
        return None
    agreed = sum(count for (first, second), count in counts.items() if first == second) / total
    shares = [sum(count for said, count in counts.items() if said[at]) / total for at in (0, 1)]
    chance = shares[0] * shares[1] + (1 - shares[0]) * (1 - shares[1])
    return None if chance == 1 else (agreed - chance) / (1 - chance)
