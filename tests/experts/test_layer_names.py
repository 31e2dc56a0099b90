"""The names of UNet layers in every file: diffusers', Kohya's underscores, and those of the original code."""

import pytest

from training.experts.layer_names import (
    diffusers_path,
    is_layer,
    is_norm,
    kohya_name,
    module_of_kohya,
    name_in_files,
)
from training.models.native_unet import Layout, module_names

PATH = "down_blocks.0.attentions.0.transformer_blocks.0"
TO_Q = f"{PATH}.attn1.to_q"
SIZES = {
    "SD 1.5": Layout((320, 640, 1280, 1280), (True, True, True, False), 2, 4, 4),
    "SDXL": Layout((320, 640, 1280), (False, True, True), 2, 4, 4),
    "SDXL Refiner": Layout((384, 768, 1536, 1536), (False, True, True, False), 2, 4, 4),
}


INSIDE = ("proj_in", "norm", "transformer_blocks.1.attn2.to_out.0", "transformer_blocks.0.norm3")


@pytest.mark.parametrize("size", SIZES)
def test_every_layer_and_norm_is_known_by_its_original_name(size):
    num_layers = num_norms = 0
    for name, native in module_names(SIZES[size]).items():
        for rest in [f".{part}" for part in INSIDE] if ".attentions." in name else [""]:
            module, original = name + rest, native + rest
            assert is_layer(module) != is_norm(module)
            assert diffusers_path("lora_unet_" + original.replace(".", "_")) == module
            assert diffusers_path(f"diffusion_model.{original}") == module
            assert diffusers_path(f"model.diffusion_model.{original}") == module
            num_layers, num_norms = num_layers + is_layer(module), num_norms + is_norm(module)
    assert min(num_layers, num_norms) > 50


@pytest.mark.parametrize(
    "path",
    [
        TO_Q,
        f"{PATH}.attn2.to_out.0",
        f"{PATH}.ff.net.0.proj",
        f"{PATH}.ff.net.2",
        "mid_block.attentions.0.proj_in",
        "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_k",
        "down_blocks.1.resnets.0.time_emb_proj",
        "up_blocks.1.upsamplers.0.conv",
        "time_embedding.linear_1",
        "conv_in",
    ],
)
def test_kohyas_underscores_are_undone(path):
    assert module_of_kohya(kohya_name(path)) == path


@pytest.mark.parametrize("path", ["", "to_q", "text_model.encoder", f"{TO_Q}.weight", f"x.{TO_Q}"])
def test_a_path_that_is_not_a_unet_layer_has_no_name(path):
    with pytest.raises(ValueError, match="not the diffusers path of a UNet layer"):
        kohya_name(path)
    with pytest.raises(ValueError, match="not the Kohya name of a UNet layer"):
        module_of_kohya(path)


@pytest.mark.parametrize(
    ("native", "path"),
    [
        ("lora_unet_input_blocks_4_1_proj_in", "down_blocks.1.attentions.0.proj_in"),
        ("lora_unet_input_blocks_8_1_proj_in", "down_blocks.2.attentions.1.proj_in"),
        ("lora_unet_middle_block_1_proj_in", "mid_block.attentions.0.proj_in"),
        ("lora_unet_output_blocks_5_1_proj_in", "up_blocks.1.attentions.2.proj_in"),
        ("lora_unet_input_blocks_1_0_in_layers_2", "down_blocks.0.resnets.0.conv1"),
        ("lora_unet_input_blocks_4_0_emb_layers_1", "down_blocks.1.resnets.0.time_emb_proj"),
        ("lora_unet_input_blocks_4_0_skip_connection", "down_blocks.1.resnets.0.conv_shortcut"),
        ("lora_unet_middle_block_2_out_layers_3", "mid_block.resnets.1.conv2"),
        ("lora_unet_input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
        ("lora_unet_output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv"),  # behind a transformer
        ("lora_unet_output_blocks_2_1_conv", "up_blocks.0.upsamplers.0.conv"),
        ("lora_unet_input_blocks_0_0", "conv_in"),
        ("lora_unet_out_2", "conv_out"),
        ("lora_unet_time_embed_0", "time_embedding.linear_1"),
        ("lora_unet_label_emb_0_2", "add_embedding.linear_2"),
    ],
)
def test_native_names_follow_three_entries_per_level(native, path):
    assert module_of_kohya(native) == path


FLOW_LAYERS = (
    "joint_blocks.0.context_block.attn.qkv",
    "joint_blocks.23.x_block.attn.proj",
    "joint_blocks.12.x_block.attn2.qkv",
    "joint_blocks.3.x_block.mlp.fc1",
    "joint_blocks.3.context_block.adaLN_modulation.1",
    "double_blocks.18.img_attn.qkv",
    "double_blocks.0.txt_attn.proj",
    "double_blocks.0.txt_mlp.2",
    "double_blocks.7.img_mod.lin",
    "single_blocks.37.linear1",
    "single_blocks.0.linear2",
    "single_blocks.0.modulation.lin",
    "layers.29.attention.qkv",
    "noise_refiner.1.attention.out",
    "context_refiner.0.feed_forward.w2",
    "layers.0.adaLN_modulation.0",
    "transformer_blocks.59.attn.to_out.0",
    "transformer_blocks.0.attn.add_q_proj",
    "transformer_blocks.0.attn.to_add_out",
    "transformer_blocks.3.img_mlp.net.0.proj",
    "transformer_blocks.3.txt_mlp.net.2",
    "transformer_blocks.3.img_mod.1",
    "blocks.0.self_attn.q_proj",
    "blocks.0.cross_attn.output_proj",
    "blocks.0.mlp.layer1",
    "blocks.0.adaln_modulation_self_attn.1",
    "llm_adapter.blocks.5.self_attn.o_proj",
    "llm_adapter.blocks.5.mlp.2",
    "blocks.27.attn.wq",
    "blocks.0.attn.gate",
    "blocks.0.mlp.up",
    "txtfusion.refiner_blocks.1.mlp.down",
    "txtfusion.layerwise_blocks.0.attn.wo",
)


@pytest.mark.parametrize("path", FLOW_LAYERS)
def test_a_layer_of_a_flow_is_known_by_the_hosts_name_and_by_kohyas(path):
    assert is_layer(path)
    assert not is_norm(path)
    assert name_in_files(path) == f"diffusion_model.{path}"
    assert diffusers_path(name_in_files(path)) == path
    assert diffusers_path(f"model.diffusion_model.{path}") == path
    assert diffusers_path("lora_unet_" + path.replace(".", "_")) == path


def test_a_layer_of_a_unet_is_named_as_kohya_names_it():
    assert name_in_files(TO_Q) == kohya_name(TO_Q)
    for path in (*FLOW_LAYERS, "joint_blocks.0.x_block.attn.ln_q"):
        with pytest.raises(ValueError, match="is not the diffusers path of a UNet layer"):
            kohya_name(path)
