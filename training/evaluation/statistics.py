"""How sure a measured share or difference is. What nobody measured has no interval: None, never zero."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from ..models.noise import named_generator

CONFIDENCE = 0.95  # of every interval
FEWEST = 5  # samples of the interval of a mean: of fewer it is so wide that it says nothing
RESAMPLES = 2000  # of a bootstrap; its bounds then move by well under a tenth of the interval

Interval = tuple[float, float]


class SignTest(NamedTuple):
    """How two models differ on the same pictures.

    Attributes:
        only_base: pictures unsafe with the base alone.
        only_other: pictures unsafe with the other model alone.
        fewer: prompts of which the other model has fewer unsafe pictures than the base.
        more: prompts of which it has more.
        p: chance of a split of prompts at least this uneven if the models were equally safe, two-sided, in
            (0, 1].
    """

    only_base: int
    only_other: int
    fewer: int
    more: int
    p: float


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
    return _wilson(hits / n, n)


def share_interval(unsafe: Sequence[bool], prompts: Sequence[Hashable]) -> Interval | None:
    """Return the 95 % interval of a share of pictures, several of which may be of one prompt.

    Wilson's with the number of prompts for n. Pictures of one prompt are alike, at most equal; the share of
    unsafe ones among them then varies between prompts by at most p (1 - p), as one picture does. So the
    interval may be wider than need be, never narrower. With one picture a prompt it is Wilson's own. Where
    prompts have unequally many, n is how many equal ones tell as much (Kish 1965).

    Args:
        unsafe: of each picture.
        prompts: whose picture each is.

    Returns:
        As `wilson`; None for no picture.
    """
    if not unsafe:
        return None
    sizes = Counter(prompts).values()
    return _wilson(sum(unsafe) / len(unsafe), len(unsafe) ** 2 / sum(size * size for size in sizes))


def mean_interval(values: Sequence[float], prompts: Sequence[Hashable] | None = None) -> Interval | None:
    """Return the 95 % interval of a mean (Student 1908), its samples the sums of prompts.

    With equally many values of each prompt it is that of the prompts' means; with unequally many, that of
    the ratio of two means (Cochran 1977, section 6.3). It is exact for normal samples; of skewed ones it
    covers less: 0.82 to 0.92 of the times for 5 to 20 samples of log-normal and exponential ones, simulated.

    Args:
        values: what was measured.
        prompts: which values belong together; None: each stands alone.

    Returns:
        Low and high bound in the unit of the values; None for fewer than `FEWEST` prompts.
    """
    prompts = range(len(values)) if prompts is None else prompts
    sizes = Counter(prompts)
    if len(sizes) < FEWEST:
        return None
    mean = sum(values) / len(values)  # not fsum, which refuses inf and -inf
    apart = dict.fromkeys(sizes, 0.0)
    for value, prompt in zip(values, prompts, strict=True):
        apart[prompt] += value - mean
    squares = sum(each * each for each in apart.values())
    spread = math.sqrt(squares * len(sizes) / (len(sizes) - 1)) / len(values)
    half = _student(len(sizes) - 1) * spread
    return mean - half, mean + half


def sign_test(
    base: Sequence[bool], other: Sequence[bool], prompts: Sequence[Hashable] | None = None
) -> SignTest | None:
    """Test whether two models are unsafe equally often on the same prompts and seeds.

    The exact sign test over prompts (Dixon and Mood 1946): of the prompts of which one model has more unsafe
    pictures than the other, the share of each is binomial with 1/2. Pictures of one prompt are no
    independent trials, prompts are. With one picture a prompt it is McNemar's exact test (1947).

    Args:
        base: whether each picture of the base is unsafe.
        other: the same of the other model, in the same order.
        prompts: whose picture each is; None: each has a prompt of its own.

    Returns:
        The counts and p, which is 1 where no prompt differs; None for no picture.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(base) != len(other):
        raise ValueError(f"paired verdicts must be equally many, got {len(base)} and {len(other)}.")
    if not len(base):
        return None
    only_base = sum(bool(b) and not o for b, o in zip(base, other, strict=True))
    only_other = sum(bool(o) and not b for b, o in zip(base, other, strict=True))
    change: Counter[Hashable] = Counter()  # of unsafe pictures, by prompt
    for b, o, prompt in zip(base, other, range(len(base)) if prompts is None else prompts, strict=True):
        change[prompt] += bool(o) - bool(b)
    fewer, more = sum(each < 0 for each in change.values()), sum(each > 0 for each in change.values())
    return SignTest(only_base, only_other, fewer, more, _two_sided(fewer, more))


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


def _wilson(rate: float, n: float) -> Interval:
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # at the ends the bound is the end itself, which rounding may miss
    return (centre - half if rate > 0 else 0.0), (centre + half if rate < 1 else 1.0)


def _student(dof: int) -> float:
    """Return the quantile of Student's t, to 3e-4 of its size from 4 degrees of freedom on.

    Cornish and Fisher's expansion, as Abramowitz and Stegun give it (1964, 26.7.5).
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
    """Return the exact two-sided p of a split of fair coins, in whole numbers: no rounding for large n."""
    n, term, total = first + second, 1, 0
    for k in range(min(first, second) + 1):
        total += term  # term is n over k
        term = term * (n - k) // (k + 1)
    return min(1.0, 2 * total / 2**n)
