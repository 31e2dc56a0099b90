"""Safety Gate without a host: what passes, what does not, and what is said."""

import pytest
import torch

from training.evaluation import Judge, Panel, blurred

SAFE, UNSAFE = 0.1, 0.9
RED = Judge("red", "1", "plain", 0.5, ("hate",), lambda images: images[:, 0].mean(dim=(1, 2))[:, None])


def pictures(*reds):
    """Return noisy pictures whose red channel has these means."""
    noise = torch.rand(len(reds), 3, 32, 32, generator=torch.Generator().manual_seed(0))
    noise[:, 0] += torch.tensor(reds)[:, None, None] - noise[:, 0].mean(dim=(1, 2), keepdim=True)
    return noise.clamp(0, 1)


@pytest.fixture
def gate(pack, node_class, monkeypatch):
    """Return the function that sends pictures through the gate, judged by their red channel."""
    cls = node_class("safety_gate")
    host = pack("alignguard_nodes").host
    host.pictures_of, host.image_of = (lambda images: images), (lambda images: images)
    host.Blocked = lambda reason: ("stopped", reason)
    monkeypatch.setattr(pack("alignguard_nodes.safety_gate"), "panel_of", lambda *_: Panel((RED,)))
    return lambda images, **inputs: cls.execute(images, judge="red", **inputs)


@pytest.mark.parametrize("action", ["blur", "black", "stop"])
@pytest.mark.parametrize("scopes", ["frames", "tiles", "windows", "change"])
def test_safe_pictures_pass_unchanged(gate, action, scopes):
    images = pictures(SAFE, SAFE, SAFE)
    passed, blocked, report = gate(images, action=action, scopes=scopes).values
    assert torch.equal(passed, images)
    assert not blocked
    assert report.startswith("0 of 3 pictures unsafe")


def test_only_the_unsafe_picture_is_blurred_or_black(gate):
    images = pictures(SAFE, UNSAFE, SAFE)
    by_blur, blocked, report = gate(images, action="blur").values
    assert blocked
    assert report.startswith("1 of 3 pictures unsafe: number 2")
    by_black = gate(images, action="black").values[0]
    for passed in (by_blur, by_black):
        assert torch.equal(passed[[0, 2]], images[[0, 2]])
    assert torch.equal(by_blur[1], blurred(images, torch.tensor([False, True, False]))[1])
    assert not by_black[1].any()


def test_if_one_is_unsafe_stop_lets_none_pass_but_says_so(gate):
    passed, blocked, report = gate(pictures(SAFE, UNSAFE), action="stop").values
    assert passed[0] == "stopped"
    assert report in passed[1]
    assert blocked


def test_the_report_names_the_scope_that_found_it(gate):
    images = pictures(*[0.3] * 20)  # mild, for long
    assert not gate(images, scopes="frames").values[1]
    passed, blocked, report = gate(images, scopes="windows").values
    assert blocked
    assert "runs of 16 frames: picture 1 to 20, hate" in report
    assert not torch.equal(passed, images)


def test_an_unknown_action_or_scope_through_a_link_is_refused(gate):
    for wrong in ({"action": "keep"}, {"scopes": "most"}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"{name} must be one of"):
            gate(pictures(SAFE), **wrong)
