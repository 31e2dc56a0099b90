"""What a file holds besides LoRA layers of the UNet: left out by kind and said, or refused."""

import logging

import pytest
import torch
from safetensors.torch import save_file

from tiny import random_layers, tiny_unet
from training.experts.expert import load_expert, save_expert
from training.experts.lora_keys import to_kohya

BLOCK = "lora_unet_down_blocks_0_attentions_0"
TO_Q = f"{BLOCK}_transformer_blocks_0_attn1_to_q"
TEXT = "2 tensors of a text encoder"
CONV = "down_blocks.0.resnets.0.conv1"


@pytest.fixture(scope="module")
def layers():
    return random_layers(tiny_unet(width=768), rank=2)


def write(path, layers, *keys, shape=(4, 4)):
    save_file(to_kohya(layers) | {key: torch.zeros(shape) for key in keys}, path)
    return path


def lora(name):
    return f"{name}.lora_up.weight", f"{name}.lora_down.weight"


@pytest.mark.parametrize(
    ("keys", "left_out"),
    [
        (lora("lora_te_text_model_encoder_layers_0_self_attn_q_proj"), TEXT),
        (lora("lora_te2_text_model_encoder_layers_0_mlp_fc1"), TEXT),
        (lora("text_encoder.text_model.encoder.layers.0.mlp.fc1"), TEXT),
        (lora("text_encoder_2.text_model.encoder.layers.0.mlp.fc1"), TEXT),
        (lora("text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1"), TEXT),
        (
            lora("base_model.model.text_model.encoder.layers.0.self_attn.q_proj"),
            "2 tensors of a text encoder",
        ),
        (
            lora("lora_unet_clip_g_transformer_text_model_encoder_layers_0_mlp_fc1"),
            "2 tensors of a text encoder",
        ),
        (lora("clip_l.text_model.encoder.layers.0.mlp.fc1"), TEXT),
        (("lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a",), "1 tensors of a text encoder"),
        (("bundle_emb.mytoken.clip_l", "bundle_emb.mytoken.clip_g"), "2 embeddings"),
        ((f"{BLOCK}_norm.w_norm", f"{BLOCK}_norm.b_norm"), "2 norms"),
        (("diffusion_model.input_blocks.1.0.in_layers.0.diff", "diffusion_model.out.0.diff_b"), "2 norms"),
        (("diffusion_model.input_blocks.1.0.in_layers.2.diff_b", f"{TO_Q}.diff_b"), "2 biases"),
        (
            (f"base_model.model.{CONV}.lora_B.bias", f"base_model.model.{CONV}.base_layer.bias"),
            "2 biases",
        ),
        ((f"{BLOCK}_proj_in.diff",), "1 full weights of layers"),
        (("base_model.model.conv_in.modules_to_save.weight",), "1 full weights of layers"),
    ],
)
def test_a_part_that_stands_alone_is_left_out_counted_and_named(keys, left_out, layers, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        expert = load_expert(write(tmp_path / "style.safetensors", layers, *keys))
    assert expert.layers.keys() == layers.keys()
    assert f"style.safetensors is used without {left_out}" in caplog.text
    assert f"left out: {left_out}" in expert.report()


def test_a_whole_expert_says_nothing_of_the_kind(layers, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        expert = load_expert(write(tmp_path / "whole.safetensors", layers))
    expert.check_whole()
    assert (caplog.text, expert.left_out) == ("", {})
    assert "left out" not in expert.report()


def test_a_saved_copy_still_says_what_its_source_held(layers, tmp_path):
    read = load_expert(write(tmp_path / "style.safetensors", layers, "bundle_emb.token.clip_l"))
    copy = load_expert(save_expert(read, tmp_path / "copy.safetensors"))
    assert "left out: 1 embeddings" in copy.report()


@pytest.mark.parametrize(
    "key", ["lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight", f"{BLOCK}_proj_in.diff"]
)
def test_a_style_may_lack_its_text_encoder_but_an_expert_may_not(key, layers, tmp_path):
    expert = load_expert(write(tmp_path / "half.safetensors", layers, key))
    with pytest.raises(ValueError, match="half.safetensors also changes .* Use it as a LoRA beside an"):
        expert.check_whole()


@pytest.mark.parametrize("key", [f"{BLOCK}_norm.w_norm", f"{TO_Q}.diff_b", "bundle_emb.token.clip_l"])
def test_an_expert_may_lack_norms_biases_and_embeddings(key, layers, tmp_path):
    load_expert(write(tmp_path / "x.safetensors", layers, key)).check_whole()


@pytest.mark.parametrize(
    ("ending", "method"),
    [
        ("dora_scale", "DoRA"),
        ("hada_w1_a", "LoHa"),
        ("hada_t1", "LoHa"),
        ("lokr_w1", "LoKr"),
        ("lokr_w2_b", "LoKr"),
        ("a1.weight", "GLoRA"),
        ("oft_blocks", "OFT"),
        ("oft_R.default.weight", "OFT"),
        ("boft_R", "OFT"),
        ("on_input", "IA3"),
        ("lora_E", "AdaLoRA"),
        ("lora_magnitude_vector.default.weight", "DoRA"),
        ("vera_lambda_b", "VeRA"),
    ],
)
def test_a_layer_of_another_method_is_refused_by_the_methods_name(ending, method, layers, tmp_path):
    others = {name: layer for name, layer in layers.items() if "attn1.to_q" not in name}
    path = write(tmp_path / "x.safetensors", others, f"{TO_Q}.{ending}")
    with pytest.raises(ValueError, match=f"x.safetensors cannot be used .*: it is a {method} file .*{TO_Q}"):
        load_expert(path)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (("bundle_emb.token.clip_l",), "no LoRA layers of the UNet, only 1 embeddings"),
        (("emb_params",), "no LoRA layers of the UNet, only 1 embeddings"),
        (("clip_g", "clip_l"), "no LoRA layers of the UNet, only 2 embeddings"),
        (lora("lora_te1_text_model_encoder_layers_0_mlp_fc1"), f"no LoRA layers of the UNet, only {TEXT}"),
        ((f"{BLOCK}_proj_in.diff",), "no LoRA layers of the UNet, only 1 full weights of layers"),
    ],
)
def test_a_file_without_lora_layers_of_the_unet_says_what_it_holds(keys, reason, tmp_path):
    path = write(tmp_path / "x.safetensors", {}, *keys)
    with pytest.raises(ValueError, match=f"x.safetensors cannot be used as an expert: it holds {reason}"):
        load_expert(path)


def test_a_convolution_split_in_two_is_the_one_that_the_host_computes(tmp_path):
    generator = torch.Generator().manual_seed(0)
    up, middle, down = (
        torch.randn(shape, generator=generator) for shape in ((8, 2, 1, 1), (2, 2, 3, 3), (2, 4, 1, 1))
    )
    name = "lora_unet_" + CONV.replace(".", "_")
    state = {
        "lora_up.weight": up,
        "lora_mid.weight": middle,
        "lora_down.weight": down,
        "alpha": torch.ones(()),
    }
    path = tmp_path / "locon.safetensors"
    metadata = {"ss_base_model_version": "sd_v1"}
    save_file({f"{name}.{part}": tensor for part, tensor in state.items()}, path, metadata=metadata)
    delta = load_expert(path).layers[CONV].delta().reshape(8, 4, 3, 3)
    pictures = torch.randn(1, 4, 5, 5, generator=generator)
    in_a_row = torch.conv2d(torch.conv2d(torch.conv2d(pictures, down), middle, padding=1), up) / 2
    torch.testing.assert_close(torch.conv2d(pictures, delta, padding=1), in_a_row, rtol=1e-4, atol=1e-4)
