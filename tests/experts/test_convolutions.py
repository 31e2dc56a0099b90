"""Convolutions in LoRA files: 4-D factors become matrices, and 4-D again as other programs expect."""

import pytest
import torch

from training.experts.convolutions import as_matrix, as_stored, kernel_of

CONV = "down_blocks.0.resnets.0.conv1"
PROJ = "down_blocks.0.attentions.0.proj_in"


@pytest.mark.parametrize(
    ("module", "family", "kernel"),
    [
        (CONV, "sdxl", (3, 3)),
        ("conv_in", "sd15", (3, 3)),
        ("up_blocks.0.upsamplers.0.conv", "sd21", (3, 3)),
        ("up_blocks.0.resnets.0.conv_shortcut", "sd15", (1, 1)),
        (PROJ, "sd15", (1, 1)),  # a convolution in SD 1.5 only
        (PROJ, "sdxl", ()),
        ("down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj", "sd15", ()),
        ("down_blocks.0.resnets.0.time_emb_proj", "sd15", ()),
    ],
)
def test_the_kernel_of_a_layer_is_known_by_its_name_and_family(module, family, kernel):
    assert kernel_of(module, family) == kernel


def test_a_convolution_survives_a_round_trip_through_a_file():
    up, down = torch.randn(8, 2), torch.randn(2, 4 * 9)
    stored_up, stored_down = (
        as_stored(factor, (3, 3), is_down=is_down) for factor, is_down in ((up, False), (down, True))
    )
    assert (stored_up.shape, stored_down.shape) == ((8, 2, 1, 1), (2, 4, 3, 3))
    assert torch.equal(as_matrix(CONV, stored_up, is_down=False), up)
    assert torch.equal(as_matrix(CONV, stored_down, is_down=True), down)
    # two convolutions in a row, which is what other programs run, are the one of the product
    pictures = torch.randn(1, 4, 5, 5)
    in_a_row = torch.conv2d(torch.conv2d(pictures, stored_down, padding=1), stored_up)
    dense = torch.conv2d(pictures, (up @ down).reshape(8, 4, 3, 3), padding=1)
    torch.testing.assert_close(in_a_row, dense, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("module", "shape", "is_down"),
    [(PROJ, (2, 4, 3, 3), True), (CONV, (2, 4, 1, 1), True), (CONV, (8, 2, 3, 3), False)],
)
def test_a_factor_with_another_kernel_than_its_layer_is_refused_by_name(module, shape, is_down):
    with pytest.raises(ValueError, match=f"{module} is a .* layer, and its lora_(up|down) must be"):
        as_matrix(module, torch.zeros(shape), is_down=is_down)
