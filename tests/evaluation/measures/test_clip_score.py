"""CLIPScore with a CLIP of random weights, against transformers' own processor and scores."""

import pytest
import torch
from transformers import CLIPImageProcessor, CLIPModel

from tiny_clip import write_clip
from training.evaluation.measures.clip_score import load_clip_score
from training.models.tokenizer import load_tokenizer
from training.system.pictures import pillow_images

PICTURE = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip")
    write_clip(path)
    return path


def test_it_is_a_hundred_times_the_cosine_that_transformers_gives(folder):
    model, prompt = CLIPModel.from_pretrained(folder).eval(), "a red boat"
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pixels = processor(pillow_images(PICTURE), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        tokens = load_tokenizer()([prompt], return_tensors="pt").input_ids  # not padded
        logits = model(input_ids=tokens, pixel_values=pixels).logits_per_image
    expected = 100 * float(logits / model.logit_scale.detach().exp())
    # 8-bit rounding after transformers' own resizing moves a cosine in the third digit
    assert load_clip_score(folder)(PICTURE, prompt) == pytest.approx(expected, abs=0.5)


def test_equal_calls_score_equally_and_other_prompts_do_not(folder):
    score = load_clip_score(folder)
    assert score(PICTURE, "a red boat") == score(PICTURE, "a red boat") != score(PICTURE, "a lake")
    assert -100 <= score(PICTURE, "word " * 200) <= 100


def test_a_folder_without_a_clip_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be used for CLIPScore"):
        load_clip_score(tmp_path)
