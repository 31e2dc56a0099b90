"""Verdicts of a judge: scores by category, flags from the threshold on, None where it does not see."""

import pytest
import torch

from training.evaluation import Judge, safety_of

PICTURES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def fixed(scores, categories=("hate", "sexual"), threshold=0.5, name="fixed"):
    return Judge(name, "1", "plain", threshold, categories, lambda images: torch.tensor(scores))


def test_a_score_at_the_threshold_is_unsafe_and_one_below_is_not():
    verdict = fixed([[0.5], [0.4999], [1.0]], ("hate",)).look(PICTURES)
    assert verdict.flags.tolist() == [[True], [False], [True]]


def test_the_score_of_several_categories_is_the_highest_and_an_uncovered_one_has_none():
    verdict = fixed([[0.1, 0.7], [0.2, 0.0], [0.0, 0.4]]).look(PICTURES)
    assert verdict.score().tolist() == pytest.approx([0.7, 0.2, 0.4])
    assert verdict.score("hate").tolist() == pytest.approx([0.1, 0.2, 0.0])
    assert verdict.flagged(("Hate", "violence")).tolist() == [False, False, False]
    assert verdict.score("violence") is None
    assert verdict.flagged(["violence", "shocking"]) is None
    assert [verdict.covers(wanted) for wanted in ("Hate", ["hate", "violence"], ())] == [True, False, True]
    assert safety_of(verdict).tolist() == pytest.approx([0.3, 0.8, 0.6])
    assert safety_of(verdict, "violence") is None


def test_the_unsafe_categories_are_those_of_any_picture_that_were_asked_for_and_measured():
    verdict = fixed([[0.1, 0.7], [0.2, 0.0], [0.0, 0.4]]).look(PICTURES)
    assert verdict.unsafe_categories() == ("sexual",)
    assert verdict.unsafe_categories(["hate", "violence"]) == ()
    assert fixed([[0.9, 0.0], [0.0, 0.9], [0.0, 0.0]]).look(PICTURES).unsafe_categories() == (
        "hate",
        "sexual",
    )


def test_an_empty_batch_gives_no_score_and_does_not_ask_the_judge():
    def never(images):
        raise AssertionError("asked about nothing")

    verdict = Judge("never", "1", "plain", 0.5, ("hate",), never).look(PICTURES[:0])
    assert verdict.scores.shape == verdict.flags.shape == (0, 1)


def test_other_shapes_than_pictures_and_scores_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"shape \(n, 3, h, w\), got \(3, 8, 8, 3\)"):
        fixed([[0.0, 0.0]] * 3).look(PICTURES.movedim(1, -1))
    for odd in (float("nan"), 1.5, -0.1):
        with pytest.raises(RuntimeError, match="not in"):
            fixed([[0.0, 0.0], [odd, 0.0], [0.0, 0.0]]).look(PICTURES)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_picture_that_is_not_finite_is_refused_before_the_judge_sees_it(value):
    def never(images):
        raise AssertionError("asked about a picture that is none")

    pictures = PICTURES.clone()
    pictures[1, 0, 0, 0] = value
    with pytest.raises(ValueError, match="the pictures to judge: 1 of 576 values are not finite"):
        Judge("never", "1", "plain", 0.5, ("hate",), never).look(pictures)


@pytest.mark.parametrize(("value", "shown"), [(float("nan"), "nan"), (float("inf"), "inf"), (1.5, "1.5")])
def test_a_score_that_is_no_probability_names_its_judge_picture_and_category(value, shown):
    judge = Judge("odd", "1", "plain", 0.5, ("hate", "violence"), lambda images: torch.tensor(scores))
    scores = [[0.1, 0.2], [0.3, value], [0.5, 0.6]]
    message = f"the judge odd gave picture 2 of 3 the score {shown} for violence, which is not in"
    with pytest.raises(RuntimeError, match=message):
        judge.look(PICTURES)


def test_a_label_states_name_version_preset_and_threshold():
    assert fixed([[0.0]]).label() == "fixed 1, preset plain, threshold 0.5"
    assert fixed([[0.0]]).at(0.25).label().endswith("threshold 0.25")
    for wrong in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="threshold must be above 0"):
            fixed([[0.0]]).at(wrong)
