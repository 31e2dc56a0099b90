"""Areas and error rates of detectors, by hand and against definitions that count every pair."""

import pytest
import torch

from training.evaluation.roc import (
    auprc,
    auroc,
    auroc_interval,
    blocked_share,
    detection,
    fpr_at_tpr,
    tpr_at_fpr,
)

UNSAFE = torch.tensor([0.9, 0.8, 0.5, 0.5])
SAFE = torch.tensor([0.7, 0.5, 0.1, 0.0])


def scores_with_ties(seed):
    generator = torch.Generator().manual_seed(seed)
    unsafe = torch.randint(3, 12, (37,), generator=generator).float()
    return unsafe, torch.randint(0, 9, (53,), generator=generator).float()


def at_every_threshold(unsafe, safe):
    """Count the blocked prompts at each score in turn, from the highest, by comparing all of them."""
    for threshold in sorted({*unsafe.tolist(), *safe.tolist()}, reverse=True):
        yield sum(u >= threshold for u in unsafe.tolist()), sum(s >= threshold for s in safe.tolist())


def test_the_area_by_hand_counts_ties_half():
    # of 16 pairs, 4 + 4 are won by the first two; each 0.5 beats two, ties with one and loses to one
    assert auroc(UNSAFE, SAFE) == (4 + 4 + 2.5 + 2.5) / 16


def test_average_precision_by_hand():
    # recall 1/4 at precision 1, 2/4 at 1, then 0.7 adds none, and 0.5 adds 2/4 at precision 4/6
    assert auprc(UNSAFE, SAFE) == pytest.approx(1 / 4 + 1 / 4 + 2 / 4 * 4 / 6)


def test_error_rates_at_set_points_by_hand():
    assert fpr_at_tpr(UNSAFE, SAFE, 0.5) == 0  # at 0.8
    assert fpr_at_tpr(UNSAFE, SAFE) == 2 / 4  # all unsafe ones are caught at 0.5 first
    assert tpr_at_fpr(UNSAFE, SAFE) == 2 / 4  # at 0.8 no safe one is blocked
    assert tpr_at_fpr(UNSAFE, SAFE, 0.5) == 1


def test_nothing_can_be_blocked_where_every_threshold_blocks_too_many_safe_prompts():
    assert tpr_at_fpr(torch.tensor([0.1, 0.2]), torch.tensor([0.9, 0.8])) == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_the_share_of_pairs_in_the_right_order(seed):
    unsafe, safe = scores_with_ties(seed)
    won = sum((u > s) + (u == s) / 2 for u in unsafe.tolist() for s in safe.tolist())
    assert auroc(unsafe, safe) == pytest.approx(won / (len(unsafe) * len(safe)), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_rates_are_those_of_counting_at_every_threshold(seed):
    unsafe, safe = scores_with_ties(seed)
    points = [(c / len(unsafe), o / len(safe)) for c, o in at_every_threshold(unsafe, safe)]
    assert fpr_at_tpr(unsafe, safe) == pytest.approx(next(fpr for tpr, fpr in points if tpr >= 0.95))
    assert tpr_at_fpr(unsafe, safe) == pytest.approx(max((t for t, f in points if f <= 0.05), default=0.0))


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_is_that_of_counting_at_every_threshold(seed):
    unsafe, safe = scores_with_ties(seed)
    total, before = 0.0, 0
    for caught, over_blocked in at_every_threshold(unsafe, safe):
        total += (caught - before) / len(unsafe) * caught / (caught + over_blocked)
        before = caught
    assert auprc(unsafe, safe) == pytest.approx(total, abs=1e-12)


def test_swapping_safe_and_unsafe_mirrors_the_area():
    unsafe, safe = scores_with_ties(0)
    assert auroc(unsafe, safe) + auroc(safe, unsafe) == pytest.approx(1, abs=1e-12)


def test_any_rising_map_of_scores_leaves_every_measure_as_it_is():
    unsafe, safe = scores_with_ties(1)
    for measure in (auroc, auprc, fpr_at_tpr, tpr_at_fpr):
        assert measure(unsafe.exp(), safe.exp()) == measure(unsafe, safe)


def test_the_interval_contains_the_area_and_repeats():
    unsafe, safe = scores_with_ties(2)
    low, high = auroc_interval(unsafe, safe, name="a")
    assert low < auroc(unsafe, safe) < high
    assert (low, high) == auroc_interval(unsafe, safe, name="a")


def test_a_perfect_detector_has_an_area_of_one_without_doubt():
    result = detection(torch.tensor([0.8, 0.9]), torch.tensor([0.1, 0.2]), 0.5)
    assert (result.auroc, result.auroc_interval, result.auprc) == (1, (1, 1), 1)
    assert (result.fpr_at_tpr95, result.tpr_at_fpr5, result.accuracy) == (0, 1, 1)


def test_a_score_at_the_threshold_is_blocked():
    share = blocked_share(torch.tensor([0.4, 0.5, 0.6]), 0.5)
    assert (share.hits, share.n) == (2, 3)
    # Wilson's interval of 2 of 3 by the formula: centre (p + z^2/2n) / (1 + z^2/n), z = 1.96
    assert share.interval == pytest.approx((0.2077, 0.9385), abs=5e-4)


def test_accuracy_counts_both_kinds_of_prompts():
    assert detection(UNSAFE, SAFE, 0.6).accuracy == (2 + 3) / 8


def test_without_prompts_a_share_is_not_measured():
    assert blocked_share(torch.zeros(0), 0.5)[2:] == (None, None)


@pytest.mark.parametrize(("unsafe", "safe"), [([], [1.0]), ([1.0], [])])
def test_a_measure_of_one_empty_set_is_refused(unsafe, safe):
    with pytest.raises(ValueError, match="not measured: there are no scores of"):
        auroc(torch.tensor(unsafe), torch.tensor(safe))


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="1 scores of safe prompts are NaN"):
        detection(UNSAFE, torch.tensor([0.5, float("nan")]), 0.5)
