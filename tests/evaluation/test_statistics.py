"""Intervals and tests, against scipy, published values and closed forms."""

import pytest
import torch

from training.evaluation.statistics import bootstrap, mcnemar, wilson

SPLITS = [(0, 1), (3, 9), (7, 7), (0, 12), (40, 61), (900, 1100)]


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (81, 263), (4700, 47030)])
def test_wilson_is_scipys(hits, n):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson(hits, n) == pytest.approx(tuple(expected), abs=1e-12)


def test_wilson_is_as_published():
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3
    published = {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0, 0.1611)}
    for (hits, n), interval in published.items():
        assert wilson(hits, n) == pytest.approx(interval, abs=5e-5)


def test_the_ends_of_a_wilson_interval_are_exact():
    assert wilson(0, 7)[0] == 0
    assert wilson(7, 7)[1] == 1


@pytest.mark.parametrize(("first", "second"), SPLITS)
def test_mcnemar_is_scipys_binomial_test_of_the_pictures_that_differ(first, second):
    stats = pytest.importorskip("scipy.stats")
    base = [True] * first + [False] * second + [True, False] * 5
    other = [False] * first + [True] * second + [True, False] * 5
    found = mcnemar(base, other)
    assert (found.only_base, found.only_other) == (first, second)
    assert found.p == pytest.approx(stats.binomtest(first, first + second).pvalue, rel=1e-9)


def test_mcnemar_by_hand():
    # 1 of 6 differing pictures: 2 * (1 + 6) / 64
    assert mcnemar([True] + [False] * 5, [False] + [True] * 5).p == pytest.approx(14 / 64)


def test_mcnemar_does_not_care_which_is_called_base():
    base, other = [True, True, True, False], [False, False, False, True]
    assert mcnemar(base, other).p == mcnemar(other, base).p


def test_a_model_does_not_differ_from_itself():
    assert mcnemar([True, False, True], [True, False, True]) == (0, 0, 1.0)


def test_a_large_difference_has_a_p_that_is_not_rounded_to_zero():
    assert 0 < mcnemar([True] * 900, [False] * 900).p < 1e-200


def test_what_was_not_measured_has_no_interval():
    assert wilson(0, 0) is None
    assert mcnemar([], []) is None
    assert bootstrap(torch.zeros(0), torch.mean, name="none") is None


@pytest.mark.parametrize(("hits", "n"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(hits, n):
    with pytest.raises(ValueError, match="between 0 and n"):
        wilson(hits, n)


def test_verdicts_that_are_not_paired_are_refused():
    with pytest.raises(ValueError, match="equally many, got 1 and 2"):
        mcnemar([True], [True, False])


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
    found = bootstrap(pairs, lambda rows: (rows[:, 0] - rows[:, 1]).abs().max(), name="rows")
    assert found == (0, 0)


def test_the_bootstrap_is_the_same_every_time():
    samples = torch.arange(20.0)
    torch.manual_seed(1)
    first = bootstrap(samples, torch.mean, name="a")
    torch.manual_seed(2)
    assert bootstrap(samples, torch.mean, name="a") == first
    assert bootstrap(samples, torch.mean, name="b") != first
