"""Reading the UNet of a model on disk, and which files are used for it."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from builders import expert_of
from tiny_tuned import half_unet, lora_of_all_layers, write_folder, write_single
from training.experts.expert import save_expert
from training.models.unet_file import WEIGHTS, UnetFile


@pytest.fixture(scope="module")
def state():
    return half_unet()


def test_tensors_come_under_diffusers_names_as_they_are_stored(state, tmp_path):
    unet = UnetFile(write_single(tmp_path / "one.safetensors", state))
    assert (unet.name, unet.family) == ("one.safetensors", "sd15")
    assert unet.shapes == {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert all(torch.equal(unet.tensor(name), tensor) for name, tensor in state.items())


def test_a_checkpoint_without_a_unet_is_refused(state, tmp_path):
    save_file(
        {"first_stage_model.x": torch.zeros(1), "model_ema.y": torch.zeros(1)}, tmp_path / "a.safetensors"
    )
    with pytest.raises(ValueError, match="a.safetensors cannot be used: it holds no network"):
        UnetFile(tmp_path / "a.safetensors")


def test_the_plain_weights_are_taken_before_a_variant(state, tmp_path):
    folder = write_folder(tmp_path / "m", state)
    save_file({"x": torch.zeros(1)}, folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    assert UnetFile(folder).shapes.keys() == state.keys()
    (folder / "unet" / WEIGHTS).rename(folder / "unet" / "other.safetensors")
    with pytest.raises(
        ValueError, match="unet holds 2 .safetensors files, and none is diffusion_pytorch_model"
    ):
        UnetFile(folder)


def test_a_folder_with_pickles_only_names_them(tmp_path):
    (tmp_path / "m" / "unet").mkdir(parents=True)
    (tmp_path / "m" / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match="m/unet holds only diffusion_pytorch_model.bin, a pickle"):
        UnetFile(tmp_path / "m")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "index.json is damaged"),
        ("[]", "index.json is damaged"),
        (json.dumps({"weight_map": {"a": 1}}), "index.json is damaged"),
        (json.dumps({"weight_map": {"a": "../other.safetensors"}}), "names files outside its folder"),
    ],
)
def test_an_index_that_is_damaged_or_points_outside_is_refused(tmp_path, index, message):
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=message):
        UnetFile(tmp_path)


def test_a_missing_shard_is_named(state, tmp_path):
    folder = write_folder(tmp_path / "m", state, num_shards=2)
    (folder / "unet" / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="00002-of-00002.safetensors does not exist"):
        UnetFile(folder)


def test_one_shard_or_the_index_stands_for_all_shards(state, tmp_path):
    unet = write_folder(tmp_path / "m", state, num_shards=2) / "unet"
    names = ("-00001-of-00002.safetensors", "-00002-of-00002.safetensors", ".safetensors.index.json")
    for name in names:
        chosen = UnetFile(unet / f"diffusion_pytorch_model{name}")
        assert chosen.shapes.keys() == state.keys()
        assert all(torch.equal(chosen.tensor(key), tensor) for key, tensor in state.items())
    (unet / f"diffusion_pytorch_model{names[2]}").unlink()
    with pytest.raises(FileNotFoundError, match=r"is one of 2 shards, but .*index\.json, .* not beside it"):
        UnetFile(unet / f"diffusion_pytorch_model{names[0]}")


def test_a_lora_and_an_unknown_family_are_refused_by_name(state, tmp_path):
    lora = expert_of(lora_of_all_layers(state))
    with pytest.raises(ValueError, match="e.safetensors cannot be used: it is already a LoRA"):
        UnetFile(save_expert(lora, tmp_path / "e.safetensors"))
    odd = {name: tensor[:, :5].clone() if ".attn2.to_k" in name else tensor for name, tensor in state.items()}
    with pytest.raises(ValueError, match="its text width is 5, which belongs to none of SD 1.5"):
        UnetFile(write_folder(tmp_path / "odd", odd))


def test_quantised_weights_are_refused_by_name(state, tmp_path):
    quantised = state | {"conv_in.weight": state["conv_in.weight"].to(torch.float8_e4m3fn)}
    with pytest.raises(ValueError, match="conv_in.weight in .* is stored as torch.float8_e4m3fn"):
        UnetFile(write_folder(tmp_path / "q", quantised)).tensor("conv_in.weight")
