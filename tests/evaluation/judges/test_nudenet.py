"""NudeNet's presets by hand, and the real package where somebody installed it."""

import importlib.util
import sys
from importlib.metadata import version
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from training.evaluation import make_judge
from training.evaluation.judges import nudenet as judge_file

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
    detected = []
    with_detector(monkeypatch, lambda picture: detected.append(picture) or [])
    picture = torch.tensor([1.0, 0.5, 0.0])[None, :, None, None].expand(1, 3, 4, 4)
    assert make_judge("nudenet").look(picture).score().item() == 0
    assert detected[0][0, 0].tolist() == [0, 128, 255]


def test_without_the_package_the_error_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "nudenet", None)
    with pytest.raises(ValueError, match="pip install nudenet"):
        make_judge("nudenet")


needs_package = pytest.mark.skipif(
    importlib.util.find_spec("nudenet") is None, reason="nudenet (AGPL-3.0) is not installed"
)


@pytest.fixture(scope="module")
def drawn_foot(tmp_path_factory):
    """A drawing of a foot as a file: harmless, seen by the detector, and a class that one preset counts."""
    picture, skin = Image.new("RGB", (256, 256), (120, 150, 190)), (230, 175, 140)
    pen = ImageDraw.Draw(picture)
    pen.ellipse((90, 90, 165, 240), fill=skin)
    pen.ellipse((85, 60, 170, 150), fill=skin)
    for number, (x, r) in enumerate(((95, 17), (120, 13), (137, 12), (152, 11), (165, 10))):
        y = 48 + 5 * number
        pen.ellipse((x - r, y - r, x + r, y + r + 8), fill=skin)
        pen.ellipse((x - r // 2, y - 3 - r // 2, x + r // 2, y - 3 + r // 2), fill=(245, 205, 190))
    file = tmp_path_factory.mktemp("drawn") / "foot.png"
    picture.filter(ImageFilter.GaussianBlur(2)).save(file)
    return file


def tensor_of(file):
    with Image.open(file) as picture:
        return torch.from_numpy(np.array(picture)).movedim(-1, 0)[None] / 255


@needs_package
def test_the_real_detector_finds_nothing_in_noise_and_plain_colours():
    noise = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    verdict = make_judge("nudenet:unlearndiffatk").look(torch.cat([noise, torch.full((1, 3, 64, 96), 0.7)]))
    assert verdict.flagged().tolist() == [False, False]


@needs_package
def test_every_preset_of_the_real_detector_scores_drawings_and_names_version_and_preset(drawn_foot):
    pictures = torch.cat([tensor_of(drawn_foot), torch.full((1, 3, 256, 256), 0.5)])
    for preset in judge_file.PRESETS:
        judge = make_judge(f"nudenet:{preset}")
        verdict = judge.look(pictures)
        assert verdict.categories == ("sexual",)
        assert verdict.score("violence") is None
        assert verdict.score().amin() >= 0
        assert verdict.score().amax() <= 1
        assert verdict.flagged().tolist() == [False, False]
        assert judge.label().startswith(f"nudenet {version('nudenet')}, preset {preset}, threshold ")


@needs_package
def test_the_real_detector_sees_the_colours_of_the_file_and_only_a_preset_that_counts_feet_counts_a_foot(
    drawn_foot,
):
    import nudenet

    (expected,) = nudenet.NudeDetector().detect(str(drawn_foot))
    assert expected["class"] == "FEET_EXPOSED"
    right = tensor_of(drawn_foot)
    scores = {
        preset: make_judge(f"nudenet:{preset}").look(right).score().item() for preset in judge_file.PRESETS
    }
    assert scores == {
        "alignguard": 0,
        "diffzoo": 0,
        "unlearndiffatk": pytest.approx(expected["score"], abs=1e-6),
    }
    swapped = make_judge("nudenet:unlearndiffatk").look(right.flip(1)).score().item()
    assert abs(swapped - expected["score"]) > 0.1  # red and blue do matter here
