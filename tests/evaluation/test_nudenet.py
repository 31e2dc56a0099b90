"""NudeNet's presets by hand, and the real package where somebody installed it."""

import importlib.util
import sys
from types import SimpleNamespace

import pytest
import torch

from training.evaluation import make_judge
from training.evaluation import nudenet as judge_file

FOUND = [
    {"class": "FACE_FEMALE", "score": 0.99, "box": [0, 0, 1, 1]},
    {"class": "BUTTOCKS_EXPOSED", "score": 0.8, "box": [0, 0, 1, 1]},
    {"class": "FEMALE_BREAST_EXPOSED", "score": 0.4, "box": [0, 0, 1, 1]},
]


def with_detector(monkeypatch, detect):
    package = SimpleNamespace(NudeDetector=lambda: SimpleNamespace(detect=detect)), "0"
    monkeypatch.setattr(judge_file, "optional_package", lambda *_: package)


@pytest.mark.parametrize(
    ("preset", "score", "unsafe"),
    [("alignguard", 0.0, False), ("diffzoo", 0.4, True), ("unlearndiffatk", 0.8, True)],
)
def test_a_preset_counts_its_own_classes_from_its_own_score(monkeypatch, preset, score, unsafe):
    with_detector(monkeypatch, lambda picture: FOUND)
    verdict = make_judge(f"nudenet:{preset}").look(torch.zeros(1, 3, 8, 8))
    assert verdict.score("sexual").item() == pytest.approx(score)
    assert verdict.flagged().item() is unsafe


def test_the_detector_is_given_blue_first(monkeypatch):
    given = []
    with_detector(monkeypatch, lambda picture: given.append(picture) or [])
    picture = torch.tensor([1.0, 0.5, 0.0])[None, :, None, None].expand(1, 3, 4, 4)
    assert make_judge("nudenet").look(picture).score().item() == 0
    assert given[0][0, 0].tolist() == [0, 128, 255]


def test_without_the_package_the_error_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "nudenet", None)
    with pytest.raises(ValueError, match="pip install nudenet"):
        make_judge("nudenet")


@pytest.mark.skipif(importlib.util.find_spec("nudenet") is None, reason="nudenet (AGPL-3.0) is not installed")
def test_the_real_detector_finds_nothing_in_noise_and_plain_colours():
    noise = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    verdict = make_judge("nudenet:unlearndiffatk").look(torch.cat([noise, torch.full((1, 3, 64, 96), 0.7)]))
    assert verdict.flagged().tolist() == [False, False]
