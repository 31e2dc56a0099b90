"""UNets under the original names become the same UNets of diffusers."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from training.models import FAMILIES, identify
from training.models.native_unet import Layout, module_names, native_name, unet_config, unet_from_native
from training.rules.categories import TEXT_WIDTHS

SD15 = FAMILIES["sd15"]
TINY = Layout(channels=(32, 64), attention=(True, True), layers=1, in_channels=4, out_channels=4)
DEEP = Layout(channels=(32, 32, 64), attention=(True, True, False), layers=2, in_channels=4, out_channels=4)
REAL = Layout((320, 640, 1280, 1280), (True, True, True, False), layers=2, in_channels=4, out_channels=4)

RESNET = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
]
ENDS = [
    ("conv_in.", "input_blocks.0.0."),
    ("time_embedding.linear_1.", "time_embed.0."),
    ("time_embedding.linear_2.", "time_embed.2."),
    ("conv_norm_out.", "out.0."),
    ("conv_out.", "out.2."),
    ("mid_block.resnets.0.", "middle_block.0."),
    ("mid_block.attentions.0.", "middle_block.1."),
    ("mid_block.resnets.1.", "middle_block.2."),
]
TINY_BLOCKS = [  # written out by hand, so that no rule is shared with the code
    ("down_blocks.0.resnets.0.", "input_blocks.1.0."),
    ("down_blocks.0.attentions.0.", "input_blocks.1.1."),
    ("down_blocks.0.downsamplers.0.conv.", "input_blocks.2.0.op."),
    ("down_blocks.1.resnets.0.", "input_blocks.3.0."),
    ("down_blocks.1.attentions.0.", "input_blocks.3.1."),
    ("up_blocks.0.resnets.0.", "output_blocks.0.0."),
    ("up_blocks.0.attentions.0.", "output_blocks.0.1."),
    ("up_blocks.0.resnets.1.", "output_blocks.1.0."),
    ("up_blocks.0.attentions.1.", "output_blocks.1.1."),
    ("up_blocks.0.upsamplers.0.conv.", "output_blocks.1.2.conv."),
    ("up_blocks.1.resnets.0.", "output_blocks.2.0."),
    ("up_blocks.1.attentions.0.", "output_blocks.2.1."),
    ("up_blocks.1.resnets.1.", "output_blocks.3.0."),
    ("up_blocks.1.attentions.1.", "output_blocks.3.1."),
]
NAMES_OF_COMFY = """
import sys; sys.argv = ["x", "--cpu"]; sys.path.insert(0, {path!r})
import comfy.utils
table = comfy.utils.unet_to_diffusers({{
    "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "transformer_depth_middle": 1,
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]}})
print("\\n".join(f"{{ours}} {{theirs}}" for ours, theirs in table.items()))
"""


@pytest.fixture(scope="module")
def tiny():
    """Return a random UNet of the mini shape, and its tensors under the original names."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(**unet_config(TINY, SD15)).eval()
    return unet, by_hand(unet.state_dict())


def by_hand(state):
    renamed = {}
    for name, tensor in state.items():
        ours, theirs = next((o, t) for o, t in ENDS + TINY_BLOCKS if name.startswith(o))
        rest = name.removeprefix(ours)
        part = rest.rpartition(".")[0]
        renamed[theirs + rest.replace(part, dict(RESNET).get(part, part), 1)] = tensor
    return renamed


def predict(unet):
    generator = torch.Generator().manual_seed(1)
    latents, embeds = (
        torch.randn(shape, generator=generator) for shape in ((2, 4, 8, 8), (2, 77, SD15.text_width))
    )
    with torch.no_grad():
        return unet(latents, torch.tensor([10, 900]), embeds).sample


def test_the_rebuilt_unet_predicts_the_same_bits(tiny):
    unet, native = tiny
    assert len(native) == len(unet.state_dict())
    assert torch.equal(predict(unet_from_native(native, SD15)), predict(unet))


def test_levels_without_attention_and_two_layers_are_rebuilt_too():
    unet = UNet2DConditionModel(**unet_config(DEEP, SD15)).eval()
    table = module_names(DEEP)
    native = {native_name(name, table): tensor for name, tensor in unet.state_dict().items()}
    assert torch.equal(predict(unet_from_native(native, SD15)), predict(unet))


def test_the_unet_is_frozen_and_shares_no_memory_with_the_host(tiny):
    native = dict(tiny[1])
    unet = unet_from_native(native, SD15)
    native["out.2.bias"] += 1
    assert not torch.equal(unet.conv_out.bias, native["out.2.bias"])
    native["out.2.bias"] -= 1
    assert not any(parameter.requires_grad for parameter in unet.parameters())
    assert not unet.training


def test_the_stored_type_is_kept_unless_one_is_named(tiny):
    half = {name: tensor.half() for name, tensor in tiny[1].items()}
    assert unet_from_native(half, SD15).dtype == torch.float16
    assert unet_from_native(half, SD15, dtype=torch.float32).dtype == torch.float32


def test_inference_tensors_of_a_host_become_trainable_ones(tiny):
    with torch.inference_mode():
        native = {name: tensor.clone() for name, tensor in tiny[1].items()}
        unet = unet_from_native(native, SD15)
    assert native["out.2.bias"].is_inference()
    assert not any(tensor.is_inference() for tensor in unet.state_dict().values())


def test_building_leaves_the_global_random_state_alone(tiny):
    before = torch.get_rng_state()
    unet_from_native(tiny[1], SD15)
    assert torch.equal(before, torch.get_rng_state())


def test_sd15_itself_gets_the_shapes_diffusers_publishes():
    with torch.device("meta"):
        published = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8).state_dict()
    table = module_names(REAL)
    native = {native_name(name, table): tensor for name, tensor in published.items()}
    assert len(native) == 686  # tensors of a UNet in every SD 1.5 checkpoint
    rebuilt = unet_from_native(native, SD15).state_dict()
    assert {name: t.shape for name, t in rebuilt.items()} == {name: t.shape for name, t in published.items()}


@pytest.mark.host
@pytest.mark.skipif(find_spec("einops") is None, reason="the packages ComfyUI needs are not installed here")
def test_names_agree_with_those_of_the_host():
    host = os.environ.get("COMFYUI_PATH", str(Path(__file__).parents[2] / ".host" / "ComfyUI"))
    code = NAMES_OF_COMFY.format(path=host)
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    theirs = dict(line.split() for line in answer.stdout.splitlines() if " " in line)
    with torch.device("meta"):
        names = UNet2DConditionModel(**unet_config(REAL, SD15)).state_dict()
    assert {name: native_name(name, module_names(REAL)) for name in names}.items() <= theirs.items()


def test_a_missing_and_a_foreign_tensor_are_named(tiny):
    native = dict(tiny[1])
    del native["middle_block.1.norm.weight"]
    native["label_emb.0.0.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"middle_block\.1\.norm\.weight.*label_emb\.0\.0\.weight"):
        unet_from_native(native, SD15)


def test_a_quantised_tensor_is_refused_by_name(tiny):
    native = dict(tiny[1])
    native["out.2.weight"] = native["out.2.weight"].to(torch.float8_e4m3fn)
    with pytest.raises(ValueError, match=r"out\.2\.weight is stored as .*float8.*not quantised"):
        unet_from_native(native, SD15)


@pytest.mark.parametrize("kind", ["comfy_quant", "weight_scale", "weight_scale_2", "scale_weight"])
def test_a_quantised_checkpoint_is_refused_with_what_to_load_instead(tiny, kind):
    name = "middle_block.1.transformer_blocks.0.attn2.to_k"
    packed = {**tiny[1], f"{name}.{kind}": torch.zeros(1)}
    packed[f"{name}.weight"] = packed[f"{name}.weight"][:, ::2].byte()  # as nvfp4: two values in each element
    with pytest.raises(ValueError, match=rf"{name}\.{kind}.*Load the same model in fp32, fp16 or bf16"):
        identify(packed)


def test_a_misshapen_tensor_is_named_with_both_shapes(tiny):
    native = dict(tiny[1])
    native["time_embed.2.bias"] = torch.zeros(7)
    with pytest.raises(ValueError, match=r"time_embed\.2\.bias must have shape \(128,\).*got \(7,\)"):
        unet_from_native(native, SD15)


def test_another_arrangement_of_blocks_is_refused():
    state = {f"input_blocks.{n}.0.in_layers.0.weight": torch.zeros(1) for n in range(3)}
    with pytest.raises(ValueError, match="not the UNet of a Stable Diffusion model"):
        unet_from_native(state, SD15)


def identifying_tensors(width, channels=4):
    return {
        "input_blocks.0.0.weight": torch.zeros(320, channels, 3, 3),
        "middle_block.1.transformer_blocks.0.attn2.to_k.weight": torch.zeros(8, width),
    }


def test_every_family_has_the_text_width_that_is_listed_for_its_name():
    assert {family.text_width: name for name, family in FAMILIES.items()} == TEXT_WIDTHS


def test_the_family_is_read_off_the_text_width(tiny):
    assert identify(tiny[1]) is SD15
    assert identify(identifying_tensors(768)) is SD15
    assert identify(identifying_tensors(2048)) is FAMILIES["sdxl"]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (identifying_tensors(1280), "SDXL Refiner"),
        (identifying_tensors(555), r"unknown family \(text width 555\)"),
        (identifying_tensors(2048, channels=9), r"inpainting model \(9 input channels instead of 4\)"),
        (identifying_tensors(768, channels=9), r"inpainting model \(9 input channels instead of 4\)"),
        ({"double_blocks.0.img_attn.qkv.weight": torch.zeros(1)}, "FLUX.1 .* only the nodes"),
        ({"joint_blocks.0.x_block.attn.qkv.weight": torch.zeros(1)}, "SD 3, which only the nodes"),
        ({"some.other": torch.zeros(1)}, "not a known UNet"),
        ({}, "0 tensors"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused_with_the_families_that_can(state, message):
    with pytest.raises(ValueError, match=rf"{message}.*this version trains SD 1\.5"):
        identify(state)
