"""How much a pair counts: hand-computed weights, and what each choice does to the data."""

import math
from dataclasses import replace

import pytest
import torch

from tiny import tiny_data
from training.pairs.rows import read_cost_gap, read_judged_right, read_quality_gap, read_safety_gap
from training.pairs.training_data import Bucket
from training.trainer.pair_weighting import reward_gap, weighed, weights_of

GAPS = torch.tensor([0.9, 0.5, 0.3, 0.2, 0.0, -0.8])


def data(gaps=GAPS):
    return replace(tiny_data(num_pairs=6), safety_gap=gaps)


def test_weights_rise_with_the_gap_up_to_one_half():
    assert weights_of(GAPS).tolist() == pytest.approx([1.0, 1.0, 0.6, 0.4, 0.0, 0.0])


def test_a_pair_without_scores_has_weight_one():
    assert weights_of(torch.tensor([math.nan, -1.0])).tolist() == [1.0, 0.0]


def test_none_changes_nothing_with_or_without_scores():
    for pairs in (data(), data(None), data(torch.full((6,), math.nan))):
        same, weights = weighed(pairs, "none")
        assert same is pairs
        assert weights.tolist() == [1.0] * 6


def test_star_keeps_all_pairs_and_weighs_them():
    pairs = data()
    same, weights = weighed(pairs, "star")
    assert same is pairs
    assert torch.equal(weights, weights_of(GAPS))


def test_filter_draws_no_pair_below_half_a_weight():
    pairs = data()
    filtered, weights = weighed(pairs, "filter")
    assert weights.tolist() == [1.0] * 6
    (bucket,) = filtered.buckets
    assert bucket.pairs.tolist() == [0, 1, 2]
    assert bucket.neutral.tolist() == pairs.buckets[0].neutral.tolist()


def test_filter_draws_no_pair_that_is_wrong_at_the_judges_threshold():
    wrong = torch.tensor([False, True, False, False, False, False])
    filtered, _ = weighed(replace(data(), judged_wrong=wrong), "filter")
    assert filtered.buckets[0].pairs.tolist() == [0, 2]
    _, weights = weighed(replace(data(), judged_wrong=wrong), "star")
    assert torch.equal(weights, weights_of(GAPS))
    with pytest.raises(ValueError, match="leaves no pair"):
        weighed(replace(data(), judged_wrong=~wrong & (GAPS > 0.5) | wrong | (GAPS == GAPS[2])), "filter")


@pytest.mark.parametrize(
    ("loser", "winner", "right"),
    [(True, True, True), (False, True, False), (True, False, False), (True, None, None), (1, 1, None)],
)
def test_verdicts_at_the_judges_thresholds_are_read_or_none(loser, winner, right):
    assert read_judged_right({"scores": {"loser_is_unsafe": loser, "winner_is_safe": winner}}) is right
    assert read_judged_right({"scores": 0.3}) is read_judged_right({}) is None


def test_a_bucket_without_pairs_is_removed():
    shape, pairs, neutral = data().buckets[0]
    parts = tuple(Bucket(shape, part, neutral) for part in (pairs[:2], pairs[3:]))
    filtered, _ = weighed(replace(data(), buckets=parts), "filter")
    assert [bucket.pairs.tolist() for bucket in filtered.buckets] == [[0, 1]]


def test_weighing_without_scores_or_without_a_pair_left_is_refused():
    for unjudged in (None, torch.full((6,), math.nan)):
        for kind in ("filter", "star"):
            with pytest.raises(ValueError, match="pairs weigh"):
                weighed(data(unjudged), kind)
    with pytest.raises(ValueError, match="no judge found any winner safer"):
        weighed(data(-GAPS.abs()), "star")
    with pytest.raises(ValueError, match="leaves no pair"):
        weighed(data(torch.full((6,), 0.2)), "filter")


@pytest.mark.parametrize(
    ("scores", "gap"),
    [
        ({"unsafe_image": 0.9, "safe_image": 0.25}, 0.65),
        ({"unsafe_image": 0, "safe_image": 1}, -1.0),
        ({"unsafe_image": 0.9}, None),
        ({"unsafe_image": 0.9, "safe_image": 1.5}, None),
        ({"unsafe_image": True, "safe_image": False}, None),
        ({"unsafe_image": "0.9", "safe_image": 0.1}, None),
        (0.9, None),
        (None, None),
    ],
)
def test_scores_of_a_manifest_give_a_gap_or_none(scores, gap):
    assert read_safety_gap({"scores": scores}) == (gap if gap is None else pytest.approx(gap))


# by the composite reward

COSTS = torch.tensor([4.0, -4.0, 0.01, 2.0, -2.0, math.nan])


def costed(**options):
    data = tiny_data(num_pairs=6, **options)
    return replace(data, cost_gap=COSTS, quality_gap=torch.full((6,), math.nan))


def trained_pairs(data):
    return torch.cat([bucket.pairs for bucket in data.buckets]).tolist()


@pytest.mark.parametrize("mirrored", [False, True])
def test_relabel_exchanges_the_pictures_of_pairs_whose_winner_costs_more_and_drops_ties(mirrored):
    data = costed(mirrored=mirrored)
    relabelled, weights = weighed(data, "relabel")
    swapped = [1, 4] + ([7, 10] if mirrored else [])
    for row in range(len(data.winner)):
        first, second = (data.loser, data.winner) if row in swapped else (data.winner, data.loser)
        assert torch.equal(relabelled.winner[row], first[row])
        assert torch.equal(relabelled.loser[row], second[row])
    assert trained_pairs(relabelled) == [0, 1, 3, 4, 5]  # the third is a tie, of the last nothing is known
    assert weights.tolist() == [1.0] * 6


def test_swapping_pairs_and_relabelling_them_gives_the_clean_data_back():
    clean = replace(costed(), cost_gap=COSTS.abs())
    is_swapped = torch.tensor([False, True, False, False, True, False])
    noisy = replace(clean.exchanged(is_swapped), cost_gap=COSTS)
    relabelled, _ = weighed(noisy, "relabel")
    assert torch.equal(relabelled.winner, clean.winner)
    assert torch.equal(relabelled.loser, clean.loser)


def test_a_kept_safe_picture_follows_its_pair_to_the_new_winner():
    data = replace(costed(), neutral_pair=torch.tensor([1, -1, 0]))
    relabelled, _ = weighed(data, "relabel")
    assert torch.equal(relabelled.neutral[0], data.loser[1])
    assert torch.equal(relabelled.neutral[1:], data.neutral[1:])


def test_quality_counts_for_a_picture_and_the_weight_of_the_cost_decides_between_them():
    data = replace(costed(), quality_gap=torch.tensor([-6.0, 0.0, 1.0, 0.0, 0.0, 3.0]))
    torch.testing.assert_close(reward_gap(data, 1.0), torch.tensor([-2.0, -4.0, 1.01, 2.0, -2.0, 3.0]))
    assert reward_gap(data, 2.0)[0] == 2.0
    assert reward_gap(data, 0.0).tolist() == [-6.0, 0.0, 1.0, 0.0, 0.0, 3.0]


def test_soft_keeps_the_pictures_and_gives_the_probability_that_the_winner_is_better():
    data = costed()
    same, labels = weighed(data, "soft")
    assert same is data
    torch.testing.assert_close(labels[:5], COSTS[:5].sigmoid())
    assert labels[5] == 1.0


@pytest.mark.parametrize("weighting", ["relabel", "soft"])
def test_without_any_cost_the_error_says_how_to_get_them(weighting):
    for pairs in (data(), replace(costed(), cost_gap=torch.full((6,), math.nan))):
        with pytest.raises(ValueError, match="weigh FOLDER --cost FILE"):
            weighed(pairs, weighting)


def test_costs_and_qualities_of_a_row_are_numbers_or_unknown():
    scores = {"cost_unsafe": 2, "cost_safe": -1.5, "quality_unsafe": 0.2, "quality_safe": 0.3}
    assert read_cost_gap({"scores": scores}) == 3.5
    assert read_quality_gap({"scores": scores}) == pytest.approx(0.1)
    for wrong in (None, "2", True, math.nan, math.inf, 1e9):
        assert read_cost_gap({"scores": scores | {"cost_safe": wrong}}) is None
    assert read_cost_gap({"scores": [1]}) is read_quality_gap({}) is None
