"""The frame scan and the blur."""

import pytest
import torch

from training.evaluation import Judge, Panel, blurred, scan_frames

RED = Judge("red", "1", "plain", 0.8, ("hate",), lambda images: images[:, 0].mean(dim=(1, 2))[:, None])


def video(reds):
    """Return frames whose red channel is the score."""
    frames = torch.zeros(len(reds), 3, 4, 4)
    frames[:, 0] = torch.tensor(reds)[:, None, None]
    return frames


def flagged(reds, panel=Panel((RED,))):  # noqa: B008  frozen
    return [at for at, flag in enumerate(scan_frames(panel, video(reds)).flagged().tolist()) if flag]


def test_one_bad_frame_among_many_is_flagged_alone():
    assert flagged([0.0] * 10 + [0.9] + [0.0] * 21) == [10]


def test_a_long_mild_run_is_flagged_though_no_frame_of_it_is():
    reds = [0.0] * 8 + [0.45] * 16 + [0.0] * 8
    assert not bool(RED.look(video(reds)).flagged().any())
    assert set(range(8, 24)) <= set(flagged(reds))


def test_a_short_mild_run_is_not():
    assert flagged([0.0] * 14 + [0.45] * 4 + [0.0] * 14) == []


def test_four_rather_bad_frames_are_flagged_and_three_are_not():
    assert flagged([0.0] * 8 + [0.65] * 4 + [0.0] * 8) == [8, 9, 10, 11]
    assert flagged([0.0] * 8 + [0.65] * 3 + [0.0] * 8) == []


@pytest.mark.parametrize("reds", [[], [0.9], [0.1, 0.9, 0.1]])
def test_a_video_shorter_than_every_window_is_judged_by_its_frames(reds):
    assert flagged(reds) == [at for at, red in enumerate(reds) if red > 0.8]


def test_scores_stay_those_of_single_frames():
    reds = [0.45] * 20
    assert scan_frames(Panel((RED,)), video(reds)).score().tolist() == pytest.approx(reds)


def test_the_rule_of_a_panel_holds_in_every_window():
    never = Judge("never", "1", "plain", 0.8, ("hate",), lambda images: torch.zeros(len(images), 1))
    reds = [0.45] * 16
    assert flagged(reds, Panel((RED, never), "any")) == list(range(16))
    assert flagged(reds, Panel((RED, never), "all")) == []
    assert flagged(reds, Panel((RED, never), "mean")) == []  # 0.225 against 0.5 * 0.8


def test_only_hidden_pictures_are_blurred_and_their_shapes_are_gone():
    stripes = torch.zeros(2, 3, 48, 64)
    stripes[..., ::4] = 1.0
    shown = blurred(stripes, torch.tensor([True, False]))
    assert torch.equal(shown[1], stripes[1])
    assert shown[0].std() < 0.05 < stripes[0].std()
    assert shown[0].mean().item() == pytest.approx(stripes[0].mean().item(), abs=0.02)


@pytest.mark.parametrize("shape", [(2, 3), (1, 40), (8, 8), (11, 300), (23, 40)])
def test_even_in_a_small_picture_single_pixels_cannot_be_told_apart(shape):
    checkered = (torch.arange(shape[0])[:, None] + torch.arange(shape[1])) % 2
    shown = blurred(checkered.float().expand(1, 3, *shape), torch.tensor([True]))
    assert shown.shape == (1, 3, *shape)
    assert (shown - 0.5).abs().max() < 0.25
