"""CLIP image embeddings without ComfyUI, against transformers on a CLIP of random weights."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessor, CLIPModel

from tiny_clip import IMAGE_SIDE, write_clip
from training.evaluation.judges.clip_vision import clip_pixels, load_clip_vision
from training.system.pictures import pillow_images


def pictures(*size):
    return torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255


def test_embeddings_are_those_of_the_whole_clip(tmp_path):
    write_clip(tmp_path)
    images = pictures(IMAGE_SIDE, IMAGE_SIDE)
    model = CLIPModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([[0, 1]]), pixel_values=clip_pixels(images, IMAGE_SIDE))
    embeds = torch.nn.functional.normalize(load_clip_vision(tmp_path)(images), dim=1)
    torch.testing.assert_close(embeds, expected.image_embeds)


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (50, 33), (16, 16)])
def test_pixels_are_those_of_the_processor_of_transformers(size):
    images = pictures(*size)
    sides = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    expected = CLIPImageProcessor(**sides)(pillow_images(images), return_tensors="pt")["pixel_values"]
    pixels = clip_pixels(images, 32)
    assert pixels.shape == expected.shape
    # it rounds to 8 bits after resizing, and to whole sides by its own rule
    assert (pixels - expected).abs().mean() < 0.01


def test_a_clip_that_lacks_weights_is_refused_not_filled_up_at_random(tmp_path):
    write_clip(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="cannot be used for judges"):
        load_clip_vision(tmp_path)


def test_damaged_weights_are_refused(tmp_path):
    write_clip(tmp_path)
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match="cannot be used for judges"):
        load_clip_vision(tmp_path)


def test_a_folder_without_a_clip_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot be used for judges"):
        load_clip_vision(tmp_path)
