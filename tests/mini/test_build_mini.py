"""The files that `python -m training mini` writes."""

import pytest
from safetensors.torch import save_file

from training.config import ExtractConfig
from training.experts.expert import load_expert
from training.experts.extract import extract_expert
from training.mini.build import CHECKPOINT, TUNED_CATEGORY, build_mini
from training.pairs import load_pairs
from training.rules.categories import CATEGORIES
from training.system.tensors import open_tensors

pytestmark = pytest.mark.slow  # the text encoder alone takes seconds


def test_pairs_load_without_dropped_rows_and_have_one_category(mini):
    for folder in mini["pairs"].iterdir():
        pairs = load_pairs(folder)
        assert len(pairs.categories) == 1
        assert pairs.pairs
        assert not pairs.neutral  # a file of the user, if there is one; what measures keeping is not in it
        assert not pairs.report.dropped


def test_experts_load_and_name_their_category(mini):
    experts = [load_expert(path) for path in mini["experts"].glob("*.safetensors")]
    assert {expert.categories for expert in experts} == {(category,) for category in CATEGORIES}
    assert all((expert.family, expert.text_width) == ("sd15", 768) for expert in experts)


def test_checkpoint_has_the_shape_of_sd15(mini):
    with open_tensors(mini["checkpoint"]) as state:
        first = state["model.diffusion_model.input_blocks.0.0.weight"]
        key = state["model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"]
    assert first.shape == (320, 4, 3, 3)
    assert key.shape == (320, 768)


def test_building_again_changes_nothing(mini):
    before = {path: path.stat().st_mtime_ns for path in mini["checkpoint"].parent.rglob("*")}
    build_mini(mini["checkpoint"].parent)
    assert before == {path: path.stat().st_mtime_ns for path in mini["checkpoint"].parent.rglob("*")}


def test_a_checkpoint_of_another_version_is_refused_and_kept(tmp_path, mini):
    with open_tensors(mini["checkpoint"]) as state:
        tensor = state["first_stage_model.vae_scale"]
    save_file({"x": tensor}, tmp_path / CHECKPOINT, metadata={"alignguard.mini": "older"})
    with pytest.raises(ValueError, match="older.*Remove the folder"):
        build_mini(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_the_tuned_unet_is_that_of_the_checkpoint_with_an_expert_merged_in(mini):
    expert = extract_expert(mini["checkpoint"], mini["tuned"], ExtractConfig(rank=16))
    shipped = load_expert(mini["experts"] / f"alignguard_mini_{TUNED_CATEGORY}.safetensors")
    assert expert.layers.keys() == shipped.layers.keys()
    for module, layer in shipped.layers.items():
        error = (expert.layers[module].delta() - layer.delta()).norm()
        assert float(error) < 0.02 * layer.norm()  # the rounding of fp16
