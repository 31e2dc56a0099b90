"""A threshold blocks as many harmless prompts as the person allows, and its rate is measured on others."""

import dataclasses

import pytest
import torch

from training.evaluation.roc import blocked_share
from training.evaluation.statistics import wilson
from training.guards.calibration import calibrate, fewest_prompts, threshold_at


def random_scores(count, seed=0):
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def texts(count):
    return [f"prompt {number}" for number in range(count)]


def test_a_threshold_by_hand_lies_between_the_last_blocked_and_the_first_passed_score():
    assert threshold_at(torch.tensor([0.1, 0.2, 0.3, 0.5]), 0.25) == pytest.approx(0.4)


@pytest.mark.parametrize("target", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("count", [20, 97, 400])
def test_a_threshold_blocks_exactly_the_allowed_number_of_different_scores(target, count):
    scores = random_scores(count)
    assert blocked_share(scores, threshold_at(scores, target)).hits == int(target * count + 1e-9)


def test_equal_scores_are_all_passed_rather_than_all_blocked():
    scores = torch.tensor([0.5] * 10 + [0.1] * 10)
    assert blocked_share(scores, threshold_at(scores, 0.25)).hits == 0


def test_a_rate_too_low_for_the_prompts_blocks_none_of_them():
    scores = random_scores(10)
    threshold = threshold_at(scores, 0.05)
    assert blocked_share(scores, threshold).hits == 0
    assert threshold - float(scores.max()) < 1e-6


def test_the_rate_is_measured_on_prompts_that_did_not_set_the_threshold():
    scores = torch.zeros(80)
    scores[::2] = torch.linspace(0, 1, 40)  # these set it
    scores[1:20:2] = 5.0  # ten of the others are above any of them
    result = calibrate(scores, texts(80), 0.05)
    assert (result.num_set, result.hits, result.num_measured) == (40, 10, 40)
    assert result.measured.interval == wilson(10, 40)


def test_the_measured_rate_of_random_scores_is_near_the_target():
    result = calibrate(random_scores(20_000), texts(20_000), 0.05)
    assert result.measured.rate == pytest.approx(
        0.05, abs=0.006
    )  # 3 standard errors of 10,000 at 0.05, twice


def test_too_few_harmless_prompts_are_refused_with_the_number_needed():
    assert fewest_prompts(0.05) == 40
    with pytest.raises(ValueError, match="at least 40 harmless prompts, got 39"):
        calibrate(random_scores(39), texts(39), 0.05)


def test_scores_that_are_not_finite_set_no_threshold():
    scores = random_scores(50)
    scores[7] = torch.inf
    with pytest.raises(ValueError, match="not finite"):
        calibrate(scores, texts(50), 0.05)


def test_the_hash_tells_prompts_apart_and_the_text_quotes_none():
    first = calibrate(random_scores(50), texts(50), 0.05)
    assert first.prompts_hash != calibrate(random_scores(50), texts(51)[1:], 0.05).prompts_hash
    assert "prompt 1" not in first.text()
    assert "others" in first.text()


def test_a_rate_on_no_prompts_is_not_measured():
    empty = dataclasses.replace(calibrate(random_scores(50), texts(50), 0.05), hits=0, num_measured=0)
    assert "not measured" in empty.text()
