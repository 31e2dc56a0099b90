"""Text encoders, VAE and all else besides the UNet of two models are compared, in checkpoints and folders."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tiny_checkpoint import checkpoint_state, tiny_models
from training.models import FAMILIES
from training.models.other_parts import OtherParts, compare_parts, num_comparisons, other_parts_sentence

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
    assert "other tensors not compared (only in one model, or stored in another layout)" in text


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
    for part in ("vae", "text_encoder"):
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


def test_folders_are_compared_with_each_other_sharded_or_not_but_not_with_a_checkpoint(base, tmp_path):
    models = tiny_models()
    one, sharded = write_folder(tmp_path / "a", models), write_folder(tmp_path / "b", models, num_shards=3)
    assert not any(change.differs for change in compare_parts(one, sharded).values())
    with torch.no_grad():
        next(models["vae"].parameters()).add_(1)
    changes = compare_parts(one, write_folder(tmp_path / "c", models))
    assert (changes["VAE"].changed, changes["text encoder"].changed) == (1, 0)
    assert compare_parts(base, one) == {"VAE": None, "text encoder": None}
    assert num_comparisons(base, one) == 0
