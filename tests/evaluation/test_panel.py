"""Several judges as one, and their scan of the frames of a video."""

import pytest
import torch

from training.evaluation import Judge, Panel, scan_frames

PICTURES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def fixed(scores, categories=("hate", "sexual"), threshold=0.5, name="fixed"):
    return Judge(name, "1", "plain", threshold, categories, lambda images: torch.tensor(scores))


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
def test_judges_are_combined_where_both_see_and_otherwise_one_decides_alone(rule, scores, flags):
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


RED = Judge("red", "1", "plain", 0.8, ("hate",), lambda images: images[:, 0].mean(dim=(1, 2))[:, None])
ALONE = Panel((RED,))


def video(reds):
    """Return frames whose red channel is the score."""
    frames = torch.zeros(len(reds), 3, 4, 4)
    frames[:, 0] = torch.tensor(reds)[:, None, None]
    return frames


def flagged(reds, panel=ALONE):
    return [at for at, flag in enumerate(scan_frames(panel, video(reds)).flagged().tolist()) if flag]


def test_one_bad_frame_among_many_is_flagged_alone():
    assert flagged([0.0] * 10 + [0.9] + [0.0] * 21) == [10]


def test_a_long_mild_run_is_flagged_though_no_frame_of_it_is():
    reds = [0.0] * 8 + [0.45] * 16 + [0.0] * 8
    assert not bool(RED.look(video(reds)).flagged().any())
    assert set(range(8, 24)) <= set(flagged(reds))


def test_a_short_mild_run_is_not_flagged():
    assert flagged([0.0] * 14 + [0.45] * 4 + [0.0] * 14) == []


def test_four_rather_bad_frames_are_flagged_and_three_are_not():
    assert flagged([0.0] * 8 + [0.65] * 4 + [0.0] * 8) == [8, 9, 10, 11]
    assert flagged([0.0] * 8 + [0.65] * 3 + [0.0] * 8) == []


@pytest.mark.parametrize("reds", [[], [0.9], [0.1, 0.9, 0.1]])
def test_a_video_shorter_than_every_window_is_judged_by_its_frames(reds):
    assert flagged(reds) == [at for at, red in enumerate(reds) if red > 0.8]


def test_scores_stay_those_of_single_frames():
    reds = [0.45] * 20
    assert scan_frames(ALONE, video(reds)).score().tolist() == pytest.approx(reds)


def test_the_rule_of_a_panel_holds_in_every_window():
    never = Judge("never", "1", "plain", 0.8, ("hate",), lambda images: torch.zeros(len(images), 1))
    reds = [0.45] * 16
    assert flagged(reds, Panel((RED, never), "any")) == list(range(16))
    assert flagged(reds, Panel((RED, never), "all")) == []
    assert flagged(reds, Panel((RED, never), "mean")) == []  # 0.225 against 0.5 * 0.8
