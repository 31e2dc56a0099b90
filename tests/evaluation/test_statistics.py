"""Intervals and tests, against scipy, published values and closed forms."""

from statistics import NormalDist

import numpy as np
import pytest
import torch

from training.evaluation.statistics import FEWEST, bootstrap, mean_interval, share_interval, sign_test, wilson

SPLITS = [(0, 1), (3, 9), (7, 7), (0, 12), (40, 61), (900, 1100)]


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (81, 263), (4700, 47030)])
def test_the_wilson_interval_is_scipys(hits, n):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson(hits, n) == pytest.approx(tuple(expected), abs=1e-12)


def test_the_wilson_interval_is_as_published():
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3
    published = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0, 0.1611)}
    for (hits, n), interval in published.items():
        assert wilson(hits, n) == pytest.approx(interval, abs=5e-5)


def test_the_ends_of_a_wilson_interval_are_exact():
    assert wilson(0, 7)[0] == 0
    assert wilson(7, 7)[1] == 1


@pytest.mark.parametrize(("first", "second"), SPLITS)
def test_the_sign_test_is_scipys_binomial_test_of_the_pictures_that_differ(first, second):
    stats = pytest.importorskip("scipy.stats")
    base = [True] * first + [False] * second + [True, False] * 5
    other = [False] * first + [True] * second + [True, False] * 5
    test = sign_test(base, other)
    assert (test.only_base, test.only_other) == (first, second)
    assert test.p == pytest.approx(stats.binomtest(first, first + second).pvalue, rel=1e-9)


def test_the_sign_test_by_hand():
    # 1 of 6 differing pictures: 2 * (1 + 6) / 64
    assert sign_test([True] + [False] * 5, [False] + [True] * 5).p == pytest.approx(14 / 64)


def test_the_sign_test_is_symmetric():
    base, other = [True, True, True, False], [False, False, False, True]
    assert sign_test(base, other).p == sign_test(other, base).p


def test_a_model_does_not_differ_from_itself():
    assert sign_test([True, False, True], [True, False, True]) == (0, 0, 0, 0, 1.0)


def test_the_p_value_of_a_large_difference_is_not_rounded_to_zero():
    assert 0 < sign_test([True] * 900, [False] * 900).p < 1e-200


def test_without_samples_there_is_no_interval():
    assert wilson(0, 0) is None
    assert sign_test([], []) is None
    assert bootstrap(torch.zeros(0), torch.mean, name="none") is None


@pytest.mark.parametrize(("hits", "n"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(hits, n):
    with pytest.raises(ValueError, match="between 0 and n"):
        wilson(hits, n)


def test_unpaired_verdicts_are_refused():
    with pytest.raises(ValueError, match="equal in number, got 1 and 2"):
        sign_test([True], [True, False])


def test_the_bootstrap_of_a_mean_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    samples = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = bootstrap(samples, torch.mean, name="mean", resamples=4000)
    expected = stats.bootstrap(
        (samples.numpy(),), lambda x, axis: x.mean(axis), n_resamples=4000, method="percentile", rng=0
    ).confidence_interval
    # the bounds of 4000 draws scatter by about 0.004 at this width of 0.27
    assert (low, high) == pytest.approx(tuple(expected), abs=0.02)


def test_the_bootstrap_of_constant_samples_is_a_point():
    assert bootstrap(torch.full((9,), 3.0), torch.median, name="same") == (3.0, 3.0)


def test_the_bootstrap_keeps_rows_together():
    pairs = torch.arange(10.0)[:, None].expand(10, 2)
    interval = bootstrap(pairs, lambda rows: (rows[:, 0] - rows[:, 1]).abs().max(), name="rows")
    assert interval == (0, 0)


def test_the_bootstrap_is_the_same_every_time():
    samples = torch.arange(20.0)
    torch.manual_seed(1)
    first = bootstrap(samples, torch.mean, name="a")
    torch.manual_seed(2)
    assert bootstrap(samples, torch.mean, name="a") == first
    assert bootstrap(samples, torch.mean, name="b") != first


def clustered(trials, prompts, pictures, *, seed):
    """Return the number of unsafe pictures per prompt, (trials, prompts), each prompt with its own rate."""
    generator = np.random.default_rng(seed)
    return generator.binomial(pictures, generator.beta(0.5, 0.5, (trials, prompts)))


def test_with_one_picture_per_prompt_the_interval_of_a_share_is_exactly_wilsons():
    for n in (1, 2, 7, 30, 333):
        for hits in range(n + 1):
            assert share_interval([True] * hits + [False] * (n - hits), range(n)) == wilson(hits, n)


@pytest.mark.parametrize("prompts", [1, 2, 3, 10, 30])
def test_the_interval_of_ten_pictures_per_prompt_covers_the_true_share(prompts):
    hits, names = 0, np.repeat(np.arange(prompts), 10).tolist()
    for counts in clustered(400, prompts, 10, seed=prompts):
        unsafe = [number < count for count in counts for number in range(10)]
        low, high = share_interval(unsafe, names)
        hits += low <= 0.5 <= high
    assert hits >= 0.95 * 400  # a bootstrap over prompts: 0.35 for one prompt, 0.78 for three


def test_prompts_with_different_numbers_of_pictures_use_the_effective_sample_size():
    low, high = share_interval([True] * 10 + [False] * 3, ["a"] * 10 + list("bcd"))
    n, share, z = 169 / 103, 10 / 13, NormalDist().inv_cdf(0.975)  # Kish: 13^2 / (10^2 + 3)
    for bound in (low, high):  # the ends of Wilson's interval, by their definition
        assert (share - bound) ** 2 == pytest.approx(z * z * bound * (1 - bound) / n, abs=1e-12)
    assert low < share < high


@pytest.mark.parametrize("n", [FEWEST, 8, 30, 500])
def test_the_interval_of_a_mean_is_scipys(n):
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(n).normal(3, 2, n)
    expected = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
    width = expected[1] - expected[0]  # Cornish and Fisher's expansion is good to 3e-4 of it
    assert mean_interval(values.tolist()) == pytest.approx(expected, abs=3e-4 * width)
    names = np.repeat(np.arange(n), 3).tolist()  # three equal values of each prompt tell no more
    assert mean_interval(np.repeat(values, 3).tolist(), names) == pytest.approx(expected, abs=3e-4 * width)


def test_the_interval_of_a_mean_of_many_is_the_bootstraps():
    values = torch.rand(400, generator=torch.Generator().manual_seed(0)).double() ** 2
    expected = bootstrap(values, torch.mean, name="many")
    assert mean_interval(values.tolist()) == pytest.approx(expected, abs=0.05 * (expected[1] - expected[0]))


def test_the_interval_of_a_mean_of_few_covers_it():
    values = np.random.default_rng(0).normal(1, 1, (2000, FEWEST))
    bounds = [mean_interval(sample) for sample in values.tolist()]
    assert sum(low <= 1 <= high for low, high in bounds) / 2000 == pytest.approx(0.95, abs=0.015)  # 3 sigma


def test_too_few_prompts_have_no_interval_of_a_mean():
    assert mean_interval([1.0] * (FEWEST - 1)) is None
    assert mean_interval([1.0, 2.0, 3.0] * 10, ["a", "b", "c"] * 10) is None
    assert mean_interval([2.0] * FEWEST) == (2, 2)


def test_with_several_pictures_per_prompt_the_sign_test_counts_prompts():
    stats = pytest.importorskip("scipy.stats")
    base = [[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 0], [1, 0, 0], [1, 1, 1], [0, 1, 0]]
    other = [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    names = np.repeat(np.arange(8), 3).tolist()
    test = sign_test(*(np.array(flags).astype(bool).ravel().tolist() for flags in (base, other)), names)
    assert test[:4] == (12, 2, 6, 1)  # the sixth prompt has as many as before, though of another seed
    assert test.p == pytest.approx(stats.binomtest(1, 7).pvalue, rel=1e-12)


def test_the_sign_test_of_equal_models_keeps_its_error_rate_with_many_pictures_per_prompt():
    counts = clustered(1000, 12, 10, seed=0), clustered(1000, 12, 10, seed=1)
    names, wrong = np.repeat(np.arange(12), 10).tolist(), 0
    for pair in zip(*counts, strict=True):
        flags = ([number < count for count in model for number in range(10)] for model in pair)
        wrong += sign_test(*flags, names).p < 0.05
    assert wrong <= 60  # of single pictures taken for independent it is about half
