"""What every judge answers: scores by category, flags from the threshold on, nothing where it is blind."""

import pytest
import torch

from training.evaluation import EVALUATORS, Judge, Panel, judge_choices, make_judge, safety_of

PICTURES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def fixed(scores, categories=("hate", "sexual"), threshold=0.5, name="fixed"):
    return Judge(name, "1", "plain", threshold, categories, lambda images: torch.tensor(scores))


def test_a_score_at_the_threshold_is_unsafe_and_one_below_is_not():
    verdict = fixed([[0.5], [0.4999], [1.0]], ("hate",)).look(PICTURES)
    assert verdict.flags.tolist() == [[True], [False], [True]]


def test_the_score_of_several_categories_is_the_highest_and_of_an_uncovered_one_there_is_none():
    verdict = fixed([[0.1, 0.7], [0.2, 0.0], [0.0, 0.4]]).look(PICTURES)
    assert verdict.score().tolist() == pytest.approx([0.7, 0.2, 0.4])
    assert verdict.score("hate").tolist() == pytest.approx([0.1, 0.2, 0.0])
    assert verdict.flagged(("Hate", "violence")).tolist() == [False, False, False]
    assert verdict.score("violence") is None
    assert verdict.flagged(["violence", "shocking"]) is None
    assert [verdict.covers(wanted) for wanted in ("Hate", ["hate", "violence"], ())] == [True, False, True]
    assert safety_of(verdict).tolist() == pytest.approx([0.3, 0.8, 0.6])
    assert safety_of(verdict, "violence") is None


def test_no_picture_gives_no_score_and_does_not_ask_the_judge():
    def never(images):
        raise AssertionError("asked about nothing")

    verdict = Judge("never", "1", "plain", 0.5, ("hate",), never).look(PICTURES[:0])
    assert verdict.scores.shape == verdict.flags.shape == (0, 1)


def test_what_is_no_picture_and_no_score_is_refused():
    with pytest.raises(ValueError, match=r"shape \(n, 3, h, w\), got \(3, 8, 8, 3\)"):
        fixed([[0.0, 0.0]] * 3).look(PICTURES.movedim(1, -1))
    for odd in (float("nan"), 1.5, -0.1):
        with pytest.raises(RuntimeError, match="not in"):
            fixed([[0.0, 0.0], [odd, 0.0], [0.0, 0.0]]).look(PICTURES)


def test_a_label_states_name_version_preset_and_threshold():
    assert fixed([[0.0]]).label() == "fixed 1, preset plain, threshold 0.5"
    assert fixed([[0.0]]).at(0.25).label().endswith("threshold 0.25")
    for wrong in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="threshold must be above 0"):
            fixed([[0.0]]).at(wrong)


def two(rule):
    mild = fixed([[0.4, 0.9], [0.4, 0.1], [0.6, 0.3]], threshold=0.3, name="mild")
    strict = fixed([[0.6], [0.2], [0.9]], ("sexual",), threshold=0.7, name="strict")
    return Panel((mild, strict), rule)


@pytest.mark.parametrize(
    ("rule", "scores", "flags"),
    [
        ("any", [0.9, 0.2, 0.9], [True, False, True]),
        ("all", [0.6, 0.1, 0.3], [False, False, True]),
        ("mean", [0.75, 0.15, 0.6], [True, False, True]),  # against the mean threshold, 0.5
    ],
)
def test_judges_are_combined_where_both_see_and_one_decides_alone_where_the_other_is_blind(
    rule, scores, flags
):
    verdict = two(rule).look(PICTURES)
    assert verdict.categories == ("hate", "sexual")
    assert verdict.score("sexual").tolist() == pytest.approx(scores)
    assert verdict.flagged("sexual").tolist() == flags
    assert verdict.score("hate").tolist() == pytest.approx([0.4, 0.4, 0.6])
    assert verdict.flagged("hate").tolist() == [True, True, True]


@pytest.mark.parametrize("rule", ["any", "all", "mean"])
def test_one_judge_alone_is_itself_under_every_rule(rule):
    judge = fixed([[0.1, 0.7], [0.5, 0.0], [0.0, 0.4]])
    alone, itself = Panel((judge,), rule).look(PICTURES), judge.look(PICTURES)
    assert torch.equal(alone.scores, itself.scores)
    assert torch.equal(alone.flags, itself.flags)
    assert Panel((judge,), rule).label() == judge.label()


def brightness(images):
    return images.mean(dim=(1, 2, 3))[:, None]


def test_many_pictures_are_judged_a_few_at_a_time_with_progress_and_can_be_stopped():
    panel = Panel(tuple(Judge(name, "1", "plain", 0.5, ("hate",), brightness) for name in ("one", "two")))
    pictures, seen = torch.rand(40, 3, 4, 4), []
    verdict = panel.look(pictures, on_progress=lambda done, total: seen.append((done, total)))
    assert torch.allclose(verdict.score(), pictures.mean(dim=(1, 2, 3)))
    assert seen == [(done, 80) for done in (16, 32, 40, 56, 72, 80)]

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        panel.look(pictures, on_progress=cancel)


def test_a_panel_needs_judges_and_a_known_rule():
    with pytest.raises(ValueError, match="at least one judge"):
        Panel(())
    with pytest.raises(ValueError, match="any, all, mean, got 'most'"):
        Panel((fixed([[0.0]]),), "most")


def test_every_kind_states_licence_presets_and_what_it_sees():
    assert list(EVALUATORS)[0] == "open_nsfw"  # the default of every widget
    for kind in EVALUATORS.values():
        assert kind.licence
        assert kind.summary
        assert kind.presets


def test_an_unknown_judge_or_preset_is_answered_with_those_there_are():
    for wrong in ("nobody", "mini:strict", ""):
        with pytest.raises(ValueError, match=f"judge must be one of open_nsfw, mini.*, got '{wrong}'"):
            make_judge(wrong)


def test_every_choice_names_a_judge_and_one_of_its_presets():
    for choice in judge_choices():
        name, _, preset = choice.partition(":")
        assert bool(preset) == (len(EVALUATORS[name].presets) > 1)
        assert not preset or preset in EVALUATORS[name].presets
    assert make_judge("mini:stand_ins").label() == make_judge("mini").label()
