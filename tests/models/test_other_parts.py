"""Text encoders, VAE and all else besides the UNet of two models are compared, in checkpoints and folders."""

import json

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from tiny_checkpoint import checkpoint_state, tiny_models
from training.models import FAMILIES
from training.models.autoencoder import kl_name
from training.models.other_parts import OtherParts, compare_parts, num_comparisons, other_parts_sentence

SMALL_VAE = {
    "block_out_channels": (32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "latent_channels": 4,
}
TEXT = "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def state():
    return checkpoint_state(tiny_models())


@pytest.fixture(scope="module")
def base(state, tmp_path_factory):
    return written(tmp_path_factory.mktemp("base") / "base.safetensors", state)


def written(path, state):
    save_file({name: tensor.contiguous().clone() for name, tensor in state.items()}, path)
    return OtherParts(path)


def test_equal_models_have_equal_parts(state, base, tmp_path):
    changes = compare_parts(base, written(tmp_path / "x.safetensors", state))
    assert list(changes) == ["VAE", "text encoder"]
    assert not any(change.differs for change in changes.values())
    assert other_parts_sentence(changes) == "VAE, text encoder equal"


def test_a_changed_text_encoder_is_measured(state, base, tmp_path):
    change = torch.zeros_like(state[TEXT])
    change[0, 0], change[1, 1] = 3, 4
    after = written(tmp_path / "x.safetensors", state | {TEXT: state[TEXT] + change})
    text = compare_parts(base, after)["text encoder"]
    assert (text.changed, text.only_in_one) == (1, 0)
    assert text.norm == pytest.approx(5, rel=1e-5)
    steps = []
    compare_parts(base, after, on_tensor=lambda: steps.append(1))
    assert len(steps) == num_comparisons(base, after) > text.tensors > 1


def test_a_copy_in_half_precision_is_equal_up_to_its_rounding(state, base, tmp_path):
    halves = {name: tensor.half() for name, tensor in state.items()}
    changes = compare_parts(base, written(tmp_path / "x.safetensors", halves))
    assert not any(change.differs for change in changes.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_change_that_is_not_finite_is_counted(state, base, tmp_path, value):
    after = written(tmp_path / "x.safetensors", state | {TEXT: torch.full_like(state[TEXT], value)})
    text = compare_parts(base, after)["text encoder"]
    assert (text.changed, text.norm) == (1, 0)


def test_a_mark_of_another_prediction_type_and_a_lost_tensor_are_named(state, base, tmp_path):
    changed = {name: tensor for name, tensor in state.items() if name != TEXT} | {"v_pred": torch.zeros(1)}
    changes = compare_parts(base, written(tmp_path / "x.safetensors", changed))
    assert changes["text encoder"].only_in_one == 1
    assert changes["other tensors"] is None
    text = other_parts_sentence(changes)
    assert "text encoder differs in 0 of" in text
    assert "and 1 in only one model" in text
    assert "other tensors not compared (only in one model, or under other names)" in text


def test_sdxl_has_two_text_encoders(tmp_path):
    family = FAMILIES["sdxl"]
    state = checkpoint_state(tiny_models(family=family), family)
    parts = written(tmp_path / "xl.safetensors", state).parts
    assert parts.keys() == {"VAE", "text encoder", "second text encoder"}


def test_a_unet_alone_has_no_other_parts(state, base, tmp_path):
    prefix = "model.diffusion_model."
    alone = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
    unet = written(tmp_path / "unet.safetensors", alone)
    assert unet.parts == {}
    assert compare_parts(base, unet) == {"VAE": None, "text encoder": None}
    assert other_parts_sentence(compare_parts(unet, unet)) == "nothing"


def write_folder(folder, models, num_shards=1):
    for part in models.keys() - {"unet"}:
        (folder / part).mkdir(parents=True)
        tensors = dict(models[part].state_dict())
        names = sorted(tensors)
        files = (
            [f"model-{n}.safetensors" for n in range(num_shards)] if num_shards > 1 else ["model.safetensors"]
        )
        weight_map = {name: files[number % num_shards] for number, name in enumerate(names)}
        for file in files:
            shard = {name: tensors[name].contiguous() for name in names if weight_map[name] == file}
            save_file(shard, folder / part / file)
        if num_shards > 1:
            text = json.dumps({"weight_map": weight_map})
            (folder / part / "model.safetensors.index.json").write_text(text)
    return OtherParts(folder)


def test_folders_are_compared_with_each_other_sharded_or_not(tmp_path):
    models = tiny_models()
    one, sharded = write_folder(tmp_path / "a", models), write_folder(tmp_path / "b", models, num_shards=3)
    assert not any(change.differs for change in compare_parts(one, sharded).values())
    with torch.no_grad():
        next(models["vae"].parameters()).add_(1)
    changes = compare_parts(one, write_folder(tmp_path / "c", models))
    assert (changes["VAE"].changed, changes["text encoder"].changed) == (1, 0)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_checkpoint_is_compared_with_a_folder_whatever_names_they_use(name, tmp_path):
    family = FAMILIES[name]
    models = tiny_models(family=family)
    checkpoint = written(tmp_path / "one.safetensors", checkpoint_state(models, family))
    changes = compare_parts(checkpoint, write_folder(tmp_path / "same", models))
    assert not any(change is None or change.differs for change in changes.values())
    with torch.no_grad():
        for kind in family.text_encoders:
            models[kind.folder].get_parameter(value_of_the_first_layer(models[kind.folder])).add_(0.5)
    folder = write_folder(tmp_path / "tuned", models)
    for order in ((checkpoint, folder), (folder, checkpoint)):
        changes = compare_parts(*order)
        assert {part: (change.changed, change.only_in_one) for part, change in changes.items()} == {
            "VAE": (0, 0),
            "text encoder": (1, 0),
            **({"second text encoder": (1, 0)} if len(family.text_encoders) > 1 else {}),
        }


def value_of_the_first_layer(model):
    """Return the name of a weight that OpenCLIP stores in one tensor with two others."""
    return next(
        name for name, _ in model.named_parameters() if name.endswith("layers.0.self_attn.v_proj.weight")
    )


def test_a_kl_vae_is_recognised_under_its_names_of_all_times(tmp_path):
    today = AutoencoderKL(**SMALL_VAE).state_dict()
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    folders = {"today": today, "2022": {}}
    for name, tensor in today.items():
        for new, word in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{word}.")
        folders["2022"][name] = tensor
    assert folders["2022"].keys() != today.keys()
    parts = {}
    for name, tensors in folders.items():
        (tmp_path / name / "vae").mkdir(parents=True)
        save_file(tensors, tmp_path / name / "vae" / "diffusion_pytorch_model.safetensors")
        parts[name] = OtherParts(tmp_path / name)
    native = {"model.diffusion_model.x": torch.zeros(1), "first_stage_model.loss.logvar": torch.zeros(1)}
    for name, tensor in original_names(today).items():
        is_attention = ".attn_1." in name and tensor.ndim == 2
        native[f"first_stage_model.{name}"] = tensor[..., None, None] if is_attention else tensor
    checkpoint = written(tmp_path / "one.safetensors", native)
    for before, after in ((parts["today"], parts["2022"]), (checkpoint, parts["2022"])):
        change = compare_parts(before, after)["VAE"]
        assert (change.tensors, change.changed, change.only_in_one) == (len(today), 0, 0)


def original_names(state):
    """Return the tensors of a small VAE under the names of the original code, found by trying them."""
    blocks = [f"down.{n}.block.0" for n in (0, 1)] + [f"up.{n}.block.{k}" for n in (0, 1) for k in (0, 1)]
    blocks += ["mid.block_1", "mid.block_2", "mid.attn_1", "down.0.downsample", "up.1.upsample"]
    ends = ["norm", "norm1", "norm2", "conv", "conv1", "conv2", "nin_shortcut", "q", "k", "v", "proj_out"]
    inner = [f"{block}.{end}" for block in blocks for end in ends]
    outer = ["conv_in", "conv_out", "norm_out"]
    modules = [f"{side}.{name}" for side in ("encoder", "decoder") for name in (*inner, *outer)]
    modules += ["quant_conv", "post_quant_conv"]
    keys = [f"{module}.{kind}" for module in modules for kind in ("weight", "bias")]
    names = {kl_name(key, 2): key for key in keys}
    return {names[name]: tensor for name, tensor in state.items()}


def test_a_folder_that_lacks_a_tensor_of_the_checkpoint_is_named(state, base, tmp_path):
    models = tiny_models()
    state_dict = models["text_encoder"].state_dict
    lost = next(name for name in state_dict() if "q_proj.weight" in name)
    models["text_encoder"].state_dict = lambda: {k: v for k, v in state_dict().items() if k != lost}
    text = compare_parts(base, write_folder(tmp_path / "m", models))["text encoder"]
    assert (text.changed, text.only_in_one) == (0, 1)
