"""Which base model a LoRA is for: names and shapes first, then metadata, then what people state."""

import pytest
import torch
from safetensors.torch import save_file

from training.experts.expert import load_expert
from training.experts.origin import family_of_lora
from training.models.published import PRUNED

DEEP = "down_blocks.2.attentions.1.transformer_blocks.9.attn1.to_q"  # SDXL alone is so deep there
SELF = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"  # SD 1.5 and SD 2.1
SHARED = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"  # all three
CROSS = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
PROJ = "down_blocks.0.attentions.0.proj_in"


@pytest.mark.parametrize(
    ("shapes", "family"),
    [
        ({DEEP: (1280, 1280)}, "sdxl"),
        ({SHARED: (640, 640), DEEP: (1280, 1280)}, "sdxl"),
        ({CROSS: (640, 768)}, "sd15"),
        ({CROSS: (640, 1024)}, "sd21"),
        ({CROSS: (640, 2048)}, "sdxl"),
        ({"add_embedding.linear_1": (1280, 2816)}, "sdxl"),
        ({CROSS: (32, 768)}, "sd15"),  # a small model of the family
    ],
)
def test_names_and_shapes_alone_decide(shapes, family):
    assert family_of_lora(shapes, {}) == family


def test_a_convolution_at_the_entry_of_a_transformer_is_sd15s():
    shapes = {SELF: (320, 320), PROJ: (320, 320)}
    assert family_of_lora(shapes, {}, convolutions=[PROJ]) == "sd15"
    with pytest.raises(ValueError, match="its layers fit SD 1.5 and SD 2.1 alike"):
        family_of_lora(shapes, {})


@pytest.mark.parametrize(
    ("key", "text", "family"),
    [
        ("ss_base_model_version", "sd_v1", "sd15"),
        ("ss_base_model_version", "sd_1.5", "sd15"),
        ("ss_base_model_version", "sd15", "sd15"),
        ("ss_base_model_version", "SD 1.5", "sd15"),
        ("ss_base_model_version", "sd_v2_768_v", "sd21"),
        ("ss_base_model_version", "SD 2.1", "sd21"),
        ("ss_base_model_version", "sdxl_base_v1-0", "sdxl"),
        ("ss_base_model_version", "SDXL 1.0", "sdxl"),
        ("modelspec.architecture", "stable-diffusion-v1/lora", "sd15"),
        ("modelspec.architecture", "stable-diffusion-v2-768-v/lora", "sd21"),
        ("modelspec.architecture", "stable-diffusion-xl-v1-base/lora", "sdxl"),
        ("alignguard.family", "sd21", "sd21"),
    ],
)
def test_metadata_decides_between_models_that_have_all_these_layers(key, text, family):
    assert family_of_lora({SHARED: (640, 640)}, {key: text}) == family


@pytest.mark.parametrize("family", ["sd15", "sd21", "sdxl"])
def test_what_people_state_decides_only_where_the_file_does_not(family):
    assert family_of_lora({SHARED: (640, 640)}, {}, assumed=family) == family
    assert family_of_lora({DEEP: (1280, 1280)}, {}, assumed=family) == "sdxl"
    assert family_of_lora({SHARED: (640, 640)}, {"ss_base_model_version": "sd_v2"}, assumed=family) == "sd21"


@pytest.mark.parametrize(
    ("shapes", "metadata", "assumed", "message"),
    [
        ({SHARED: (640, 640)}, {}, "", "its layers fit SD 1.5 and SD 2.1 and SDXL alike"),
        ({SHARED: (640, 640)}, {"ss_base_model_version": "my model"}, "", "does not say which base model"),
        ({SELF: (320, 320)}, {}, "sdxl", "its layers fit SD 1.5 and SD 2.1 alike"),
        ({CROSS: (16, 99)}, {}, "", r"its layers fit none \(text width 99\)"),
        (
            {SELF: (320, 320)},
            {"ss_base_model_version": "SDXL 1.0"},
            "",
            "its metadata says SDXL, but its layers are those of SD 1.5 or SD 2.1",
        ),
        (
            {CROSS: (640, 768)},
            {"ss_base_model_version": "sdxl_base_v1-0"},
            "",
            "its metadata says SDXL, but its text width 768 is that of SD 1.5",
        ),
        ({CROSS: (768, 1280)}, {}, "", "it is for SDXL Refiner, which is not supported"),
        ({CROSS: (768, 1280)}, {"ss_base_model_version": "sdxl_refiner_v1-0"}, "", "it is for SDXL Refiner"),
        ({SHARED: (768, 768)}, {}, "", "it is for SDXL Refiner"),  # its own widths
        ({"conv_in": (320, 81), CROSS: (640, 768)}, {}, "", r"for an inpainting model \(9 input channels"),
        (
            {"conv_in": (320, 72), CROSS: (640, 768)},
            {},
            "",
            r"for an InstructPix2Pix model \(8 input channels",
        ),
        (
            {SHARED: (1, 1)},
            {"ss_base_model_version": "flux3-klein"},
            "",
            "it is for a later FLUX, which is not supported",
        ),
    ],
)
def test_what_is_not_supported_or_not_told_is_refused_by_name(shapes, metadata, assumed, message):
    with pytest.raises(ValueError, match=message):
        family_of_lora(shapes, metadata, assumed=assumed)


def test_a_slider_without_cross_attention_is_read_from_its_file(tmp_path):
    name = "lora_unet_" + PROJ.replace(".", "_")
    up, down = torch.ones(320, 4, 1, 1), torch.ones(4, 320, 1, 1)
    save_file(
        {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}, tmp_path / "slider.safetensors"
    )
    assert load_expert(tmp_path / "slider.safetensors").family == "sd15"


def test_a_lora_of_a_pruned_sdxl_is_refused_by_the_models_name():
    ssd_1b = next(unet for unet in PRUNED if unet.label == "SSD-1B")
    shapes = {
        f"{transformer}.transformer_blocks.{number}.attn1.to_q": (640, 640)
        for transformer, depth in ssd_1b.depths().items()
        for number in range(depth)
    }
    with pytest.raises(ValueError, match="it is for SSD-1B, which is not supported"):
        family_of_lora(shapes, {"ss_base_model_version": "sdxl_base_v1-0"})


JOINT = "joint_blocks.0.x_block.attn.qkv"


def test_the_layers_of_sd3_decide_whatever_their_size():
    for width in (128, 1536):
        assert family_of_lora({JOINT: (3 * width, width)}, {}) == "sd3"
        assert family_of_lora({JOINT: (3 * width, width)}, {"modelspec.architecture": "sd3-medium"}) == "sd3"


def test_the_layers_of_flux1_decide():
    shapes = {"double_blocks.0.img_attn.qkv": (9216, 3072), "single_blocks.37.linear2": (3072, 15360)}
    assert family_of_lora(shapes, {}) == family_of_lora(shapes, {"ss_base_model_version": "flux1"}) == "flux1"
    with pytest.raises(ValueError, match="metadata says SD 3, but its layers are those of FLUX.1"):
        family_of_lora(shapes, {"alignguard.family": "sd3"})


def test_metadata_of_animagine_is_not_taken_for_anima():
    assert family_of_lora({DEEP: (1280, 1280)}, {"ss_base_model_version": "animagine-3.1"}) == "sdxl"
    layers = {"blocks.0.self_attn.q_proj": (2048, 2048)}
    assert family_of_lora(layers, {"modelspec.architecture": "anima/lora"}) == "anima"
    with pytest.raises(ValueError, match="metadata says Anima, but its layers are those of Krea 2"):
        family_of_lora({"blocks.0.attn.wq": (6144, 6144)}, {"ss_base_model_version": "anima-preview"})


def test_widths_or_metadata_or_the_model_tell_flux2_from_flux1():
    attention = {"double_blocks.0.img_attn.qkv": (9216, 3072), "double_blocks.0.img_attn.proj": (3072, 3072)}
    for gated in ({"single_blocks.0.linear1": (27648, 3072)}, {"double_blocks.0.txt_mlp.2": (3072, 9216)}):
        assert family_of_lora(attention | gated, {}) == "flux2"
        with pytest.raises(ValueError, match=r"metadata says FLUX.1, but its layers are those of FLUX.2"):
            family_of_lora(attention | gated, {"ss_base_model_version": "flux1"})
    for shared in (
        {"single_blocks.0.linear1": (21504, 3072)},
        {"double_blocks.0.img_mod.lin": (18432, 3072)},
    ):
        assert family_of_lora(attention | shared, {}, assumed="flux2") == "flux1"
    assert family_of_lora(attention, {}) == "flux1"
    assert family_of_lora(attention, {"ss_base_model_version": "flux2_klein_4b"}) == "flux2"
    assert family_of_lora(attention, {}, assumed="flux2") == "flux2"


def test_layers_of_one_kind_of_network_with_the_name_of_another_are_refused():
    with pytest.raises(ValueError, match="metadata says SDXL, but its layers are those of SD 3"):
        family_of_lora({JOINT: (384, 128)}, {"alignguard.family": "sdxl"})
    with pytest.raises(ValueError, match="metadata says SD 3, but its layers are those of a UNet"):
        family_of_lora({SHARED: (640, 640)}, {"alignguard.family": "sd3"})
    with pytest.raises(ValueError, match="to be used with SD 3, but its layers are those of a UNet"):
        family_of_lora({SHARED: (640, 640)}, {}, assumed="sd3")
