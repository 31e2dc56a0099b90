"""Families of flow-matching transformers: which layers are whose, and which of them are trained."""

import re

import pytest

from training.models.flow import FLOW_FAMILIES, flow_family_of, flow_family_of_network

BLOCK = {  # layers of a block of each family
    "sd3": ("joint_blocks.0.x_block.attn.qkv", "joint_blocks.0.context_block.mlp.fc2"),
    "flux1": ("double_blocks.0.img_attn.qkv", "single_blocks.3.linear1"),
    "zimage": ("layers.0.attention.qkv", "context_refiner.0.feed_forward.w1"),
    "qwenimage": ("transformer_blocks.0.attn.add_q_proj", "transformer_blocks.0.img_mlp.net.2"),
    "anima": ("blocks.0.self_attn.q_proj", "blocks.27.cross_attn.output_proj", "blocks.3.mlp.layer2"),
    "krea2": ("blocks.0.attn.wq", "blocks.0.attn.gate", "blocks.27.mlp.gate"),
}
NAMED_AS_FLUX1 = "double_stream_modulation_img.lin"  # the layers of FLUX.2's blocks are; this is in none


@pytest.mark.parametrize("name", BLOCK)
def test_the_layers_of_a_family_are_those_of_no_other(name):
    family = FLOW_FAMILIES[name]
    assert flow_family_of(BLOCK[name]) is family
    assert flow_family_of_network(f"{module}.weight" for module in BLOCK[name]) is family
    assert flow_family_of([*BLOCK[name], "conv_in"]) is None


@pytest.mark.parametrize("name", BLOCK)
def test_every_layer_that_is_trained_is_known_in_files(name):
    family = FLOW_FAMILIES[name]
    for module in BLOCK[name]:
        assert re.fullmatch(family.targets(9)["attention+ff"], module)
        assert family.has_layer(module)


def test_the_network_of_flux2_is_told_from_flux1_by_what_modulates_its_blocks():
    assert FLOW_FAMILIES.keys() - BLOCK == {"flux2"}
    modules = (*BLOCK["flux1"], NAMED_AS_FLUX1)
    assert flow_family_of(modules) is FLOW_FAMILIES["flux2"]
    assert flow_family_of_network(f"{module}.weight" for module in modules) is FLOW_FAMILIES["flux2"]
    assert FLOW_FAMILIES["flux2"].targets(9) == FLOW_FAMILIES["flux1"].targets(9)


def test_what_the_last_block_makes_of_the_text_is_not_trained_where_nothing_reads_it():
    targets = FLOW_FAMILIES["qwenimage"].targets(59)["attention+ff"]
    unread = ("attn.add_q_proj", "attn.to_add_out", "txt_mlp.net.0.proj", "txt_mlp.net.2")
    for layer in unread:
        assert not re.fullmatch(targets, f"transformer_blocks.59.{layer}")
        assert re.fullmatch(targets, f"transformer_blocks.5.{layer}")
    for layer in ("attn.add_k_proj", "attn.add_v_proj", "attn.to_q", "img_mlp.net.2"):
        assert re.fullmatch(targets, f"transformer_blocks.59.{layer}")
