"""Several judges as one."""

import pytest
import torch

from training.evaluation import Judge, Panel

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
