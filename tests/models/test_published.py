"""Published UNets are told apart by their layers, which are those that diffusers builds."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from training.models.published import PUBLISHED, candidates, pruned_like

XL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "attention_head_dim": (5, 10, 20),
}
PRUNED_MIDDLE = {"mid_block_type": "UNetMidBlock2D"}
CONFIGS = {  # unet/config.json of the published folders, as far as names and shapes depend on it
    "SD 1.5": {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768},
    "SD 2.1": {
        "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    "SDXL": {**XL, "transformer_layers_per_block": [1, 2, 10]},
    "SDXL Refiner": {
        **XL,
        "block_out_channels": (384, 768, 1536, 1536),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": (6, 12, 24, 24),
        "cross_attention_dim": 1280,
        "projection_class_embeddings_input_dim": 2560,
        "transformer_layers_per_block": 4,
    },
    "SSD-1B": {
        **XL,
        **PRUNED_MIDDLE,
        "transformer_layers_per_block": [1, [2, 2], [4, 4]],
        "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
    },
    "Segmind Vega": {
        **XL,
        **PRUNED_MIDDLE,
        "transformer_layers_per_block": [1, [1, 1], [2, 2]],
        "reverse_transformer_layers_per_block": [[2, 2, 2], [1, 1, 1], 1],
    },
}


def layers_of(label):
    """Return the shapes of all layers of a UNet that diffusers builds, and the 1x1 convolutions."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**CONFIGS[label])
    weights = {
        name.removesuffix(".weight"): tensor.shape
        for name, tensor in unet.state_dict().items()
        if name.endswith(".weight") and tensor.ndim > 1
    }
    return (
        {name: (shape[0], shape[1:].numel()) for name, shape in weights.items()},
        [name for name, shape in weights.items() if len(shape) == 4],
    )


@pytest.fixture(scope="module")
def layers():
    return {label: layers_of(label) for label in CONFIGS}


@pytest.mark.parametrize("label", CONFIGS)
def test_the_layers_of_a_unet_belong_to_no_other(label, layers):
    shapes, convolutions = layers[label]
    assert [unet.label for unet in candidates(shapes, convolutions)] == [label]


@pytest.mark.parametrize("label", ["SD 1.5", "SD 2.1", "SDXL", "SDXL Refiner"])
def test_a_unet_has_its_own_layers_and_no_others(label, layers):
    unet = next(unet for unet in PUBLISHED if unet.label == label)
    for other in ("SD 1.5", "SD 2.1", "SDXL", "SDXL Refiner"):
        for module, shape in layers[other][0].items():
            if module not in ("conv_in", "conv_out") and not module.endswith(("conv1", "conv_shortcut")):
                assert unet.has(module, *shape) == (layers[label][0].get(module) == shape), module


@pytest.mark.parametrize("label", ["SSD-1B", "Segmind Vega"])
def test_a_pruned_model_is_known_by_the_depth_of_its_transformers(label, layers):
    shapes, _ = layers[label]
    assert pruned_like(shapes) == label
    of_attention = [module for module in shapes if module.endswith("attn1.to_q")]  # what a LoRA may change
    assert pruned_like(of_attention) == label
    assert pruned_like(of_attention[:-1]) == ""
    assert pruned_like(layers["SDXL"][0]) == ""
