"""The scopes of a scan, on clips whose scores are known, and on drawn clips that the mini judge looks at."""

import pytest
import torch

from drawn_clips import drawn_clip
from training.evaluation import SCOPES, Judge, Panel, make_judge, scan
from training.evaluation.scopes import PARTS, Finding, raised_contrast, thinned, tiles

RED = Judge("red", "1", "plain", 0.8, ("hate",), lambda images: images[:, 0].mean(dim=(1, 2))[:, None])
ALONE = Panel((RED,))


def clip(reds):
    """Return frames whose red channel is the score."""
    frames = torch.zeros(len(reds), 3, 4, 4)
    frames[:, 0] = torch.tensor(reds)[:, None, None]
    return frames


def flagged(reds, panel=ALONE, scopes="windows"):
    flags = scan(panel, clip(reds), scopes).verdict.flagged()
    return [at for at, flag in enumerate(flags.tolist()) if flag]


def test_one_bad_frame_among_many_is_flagged_alone():
    assert flagged([0.0] * 10 + [0.9] + [0.0] * 21) == [10]


def test_a_long_mild_run_is_flagged_though_no_frame_of_it_is():
    reds = [0.0] * 8 + [0.45] * 16 + [0.0] * 8
    assert not bool(RED.look(clip(reds)).flagged().any())
    assert set(range(8, 24)) <= set(flagged(reds))


def test_a_short_mild_run_is_not_flagged():
    assert flagged([0.0] * 14 + [0.45] * 4 + [0.0] * 14) == []


def test_four_rather_bad_frames_are_flagged_and_three_are_not():
    assert flagged([0.0] * 8 + [0.65] * 4 + [0.0] * 8) == [8, 9, 10, 11]
    assert flagged([0.0] * 8 + [0.65] * 3 + [0.0] * 8) == []


@pytest.mark.parametrize("reds", [[], [0.9], [0.1, 0.9, 0.1]])
def test_a_clip_shorter_than_every_window_is_judged_by_its_frames(reds):
    assert flagged(reds) == [at for at, red in enumerate(reds) if red > 0.8]


def test_scores_stay_those_of_single_frames():
    reds = [0.45] * 20
    assert scan(ALONE, clip(reds)).verdict.score().tolist() == pytest.approx(reds)


def test_the_rule_of_a_panel_holds_in_every_window():
    never = Judge("never", "1", "plain", 0.8, ("hate",), lambda images: torch.zeros(len(images), 1))
    reds = [0.45] * 16
    assert flagged(reds, Panel((RED, never), "any")) == list(range(16))
    assert flagged(reds, Panel((RED, never), "all")) == []
    assert flagged(reds, Panel((RED, never), "mean")) == []  # 0.225 against 0.5 * 0.8


# what a scan says


def test_a_finding_names_the_scope_the_pictures_and_the_categories():
    reds = [0.0] * 2 + [0.9] + [0.0] * 5 + [0.65] * 4 + [0.0] * 4
    assert scan(ALONE, clip(reds), "windows").findings == (
        Finding("frames", 3, 3, ("hate",)),
        Finding("runs of 4 frames", 9, 12, ("hate",)),
    )


def test_an_unknown_scope_is_refused_by_its_name():
    with pytest.raises(ValueError, match="frames, tiles, windows, change, all, got 'most'"):
        scan(ALONE, clip([0.0]), "most")


@pytest.mark.parametrize("scopes", SCOPES)
@pytest.mark.parametrize("n", [0, 1, 2, 5, 33])
def test_a_scan_of_any_length_says_something_of_every_picture_and_counts_its_looks(scopes, n):
    seen, looks = [], []
    judge = Judge(
        "eye", "1", "plain", 0.5, ("hate",), lambda images: looks.append(len(images)) or zeros(images)
    )
    pictures = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(n))
    scanned = scan(Panel((judge,)), pictures, scopes, lambda done, total: seen.append((done, total)))
    assert scanned.verdict.scores.shape == scanned.verdict.flags.shape == (n, 1)
    assert scanned.findings == ()
    assert scanned.looks == sum(looks) <= max(6 * n, 7)
    assert not n or seen[-1] == (sum(looks),) * 2


def zeros(images):
    return torch.zeros(len(images), 1)


def test_progress_can_stop_a_scan():
    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(ALONE, clip([0.0] * 8), "all", cancel)


def test_a_picture_that_is_not_a_number_is_refused_at_every_scope():
    for scopes in SCOPES:
        with pytest.raises(ValueError, match="the pictures to judge"):
            scan(ALONE, clip([0.0, float("nan")]), scopes)


# parts


def test_the_parts_of_a_picture_are_its_quarters_and_its_centre():
    picture = torch.zeros(1, 3, 8, 8)
    picture[..., :4, 4:] = 1.0
    parts = tiles(picture)
    assert parts.shape == (PARTS, 3, 8, 8)
    assert [float(part.mean()) for part in parts] == pytest.approx([0, 1, 0, 0, 0.25], abs=0.05)
    assert tiles(torch.zeros(2, 3, 600, 514)).shape == (2 * PARTS, 3, 300, 257)  # large enough as they are


def test_a_part_counts_only_far_above_the_threshold():
    picture = torch.zeros(1, 3, 8, 8)
    for red, is_unsafe in ((0.9, False), (1.0, True)):
        picture[:, 0, :4, :4] = red  # a quarter of the whole
        scanned = scan(Panel((Judge("red", "1", "plain", 0.5, ("hate",), corner_red),)), picture, "tiles")
        assert bool(scanned.verdict.flagged()) == is_unsafe


def corner_red(images):
    return (images[:, 0].mean(dim=(1, 2)))[:, None].clamp(0, 1)


# thinning and contrast


def test_thinning_keeps_every_fourth_frame_and_one_unlike_its_neighbours():
    frames = torch.zeros(16, 3, 16, 16) + torch.arange(16)[:, None, None, None] / 160
    frames[6] += 0.4
    assert thinned(frames).tolist() == [0, 4, 6, 8, 12, 15]
    assert thinned(frames[:1]).tolist() == [0]


def test_a_frame_left_out_has_the_worse_of_its_neighbours():
    reds = [0.0] * 8 + [0.9] * 2 + [0.0] * 6  # of these, 4, 8 and 12 are looked at
    assert flagged(reds, scopes="change") == list(range(4, 13))


def test_contrast_is_raised_only_where_it_is_low_and_the_ground_keeps_its_colour():
    frames = torch.full((2, 3, 16, 16), 0.2)
    frames[:, :, 4:8, 4:8] = torch.tensor([0.35, 1.0])[:, None, None, None]
    faint, lifted = raised_contrast(frames)
    assert faint.tolist() == [0]
    assert lifted[0, 0, 0, 0] == pytest.approx(0.2)
    assert lifted[0, 0, 5, 5] == pytest.approx(0.8)  # four times the distance, the most


# drawn clips of 32 frames; `python dev.py bench shield` has the same with more of them


def share_caught(kind, scopes, n=8):
    panel = Panel((make_judge("mini"),))
    scans = [scan(panel, drawn_clip(kind, seed), scopes) for seed in range(n)]
    assert all(one.looks <= 6 * 32 for one in scans)
    return sum(bool(one.verdict.flagged().any()) for one in scans) / n


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one frame", "small, in a corner", "faded to 40 %"])
def test_all_scopes_catch_what_is_rare_small_or_faint(kind):
    assert share_caught(kind, "all") == 1.0


@pytest.mark.slow
def test_single_frames_miss_what_is_small_or_faint():
    assert share_caught("small, in a corner", "frames") <= 0.5
    assert share_caught("faded to 40 %", "frames") == 0.0


@pytest.mark.slow
def test_no_scope_calls_a_harmless_clip_unsafe():
    assert share_caught("clean", "all") == share_caught("clean", "change") == 0.0
