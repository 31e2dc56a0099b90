"""Refusals of the nodes in a real ComfyUI: with a clear message, and without partial results."""

import pytest
import torch
from safetensors.torch import save_file

from api_graphs import (
    HATE,
    SHOCKING,
    add_expert,
    add_render,
    add_training,
    node,
    saved_experts,
    with_model,
)
from comfy_server import ComfyError

pytestmark = pytest.mark.host

NAME = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def lora(d_in: int, name: str = NAME) -> dict[str, torch.Tensor]:
    return {
        f"{name}.lora_up.weight": torch.ones(320, 4),
        f"{name}.lora_down.weight": torch.ones(4, d_in),
        f"{name}.alpha": torch.tensor(4.0),
    }


@pytest.fixture
def no_new_files(comfy):
    """Check that a refused prompt leaves no file behind."""
    before = saved_experts(comfy)
    yield
    assert saved_experts(comfy) == before


def applied(file: str, **settings) -> dict:
    settings = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, **settings}
    graph = add_expert(with_model(), file=file)
    graph["apply"] = node("AlignGuardApplySafetyExpert", model=("ckpt", 0), expert=("expert", 1), **settings)
    return add_render(graph, "picture", ("apply", 0))


def merged(**settings) -> dict:
    graph = add_expert(add_expert({}), "other", HATE)
    inputs = {"expert_1": ("expert", 1), "expert_2": ("other", 1), **settings}
    graph["merge"] = node("AlignGuardMergeSafetyExperts", **inputs)
    return saved(graph, "merge", 0)


def saved(graph: dict, expert: str, slot: int, prefix: str = "refused", dtype: str = "fp32") -> dict:
    inputs = {"expert": (expert, slot), "filename_prefix": prefix, "dtype": dtype}
    return graph | {"save": node("AlignGuardSaveSafetyExpert", **inputs)}


def test_an_expert_of_another_family_is_refused_and_both_families_are_named(comfy, no_new_files):
    save_file(lora(2048), comfy.models_dir / "safety_experts" / "hate_xl.safetensors")
    message = r"'hate_xl.safetensors' was trained for SDXL \(text width 2048\); this model is SD 1.5 \(768\)"
    with pytest.raises(ComfyError, match=message):
        comfy.run(applied("hate_xl.safetensors"))


def test_an_expert_without_matching_layers_is_refused(comfy, no_new_files):
    name = NAME.replace("down_blocks_0", "down_blocks_3")
    save_file(lora(768, name), comfy.models_dir / "safety_experts" / "deep.safetensors")
    with pytest.raises(ComfyError, match="0 of 1 layers of the expert match"):
        comfy.run(applied("deep.safetensors"))


def test_an_expert_that_matches_partly_is_applied_with_a_warning_that_names_the_rest(comfy):
    state = lora(768) | lora(768, NAME.replace("down_blocks_0", "down_blocks_3"))
    save_file(state, comfy.models_dir / "safety_experts" / "half.safetensors")
    entry = comfy.run(applied("half.safetensors"))
    assert "1 of 2 layers" in entry["outputs"]["apply"]["text"][0]
    assert "half.safetensors: 1 of 2 layers" in comfy.log_text()
    assert "down_blocks.3.attentions.0" in comfy.log_text()


def test_a_missing_file_is_refused_before_anything_runs(comfy, no_new_files):
    with pytest.raises(ComfyError, match="there is no expert 'nowhere.safetensors'"):
        comfy.post(applied("nowhere.safetensors"))


def test_a_truncated_expert_is_reported_as_damaged(comfy, no_new_files):
    folder = comfy.models_dir / "safety_experts"
    whole = (folder / SHOCKING).read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ComfyError, match="cut.safetensors is damaged or incomplete"):
        comfy.run(applied("cut.safetensors"))


def test_a_pickle_is_refused_and_named(comfy, no_new_files):
    (comfy.models_dir / "loras" / "old.pt").write_bytes(b"PK\x03\x04 a pickle")
    with pytest.raises(ComfyError, match="old.pt is a pickle"):
        comfy.run(applied("old.pt"))


@pytest.mark.parametrize("strength", [-0.5, 2.5])
def test_a_strength_out_of_range_is_refused(comfy, no_new_files, strength):
    with pytest.raises(ComfyError, match="strength"):
        comfy.post(applied(SHOCKING, strength=strength))


def test_a_negative_strength_through_a_link_is_refused_too(comfy, no_new_files):
    graph = applied(SHOCKING)
    graph["number"] = node("PrimitiveFloat", value=-1.0)
    graph["apply"]["inputs"]["strength"] = ["number", 0]
    with pytest.raises(ComfyError, match="would undo the safety"):
        comfy.run(graph)


def test_an_empty_range_of_steps_is_refused(comfy, no_new_files):
    with pytest.raises(ComfyError, match="start_percent must be below end_percent"):
        comfy.run(applied(SHOCKING, start_percent=0.8, end_percent=0.2))


def test_the_error_for_an_empty_pairs_folder_says_what_is_missing(comfy, no_new_files):
    (comfy.pairs_dir / "alignguard_pairs" / "empty").mkdir(exist_ok=True)
    with pytest.raises(ComfyError, match="pairs.jsonl"):
        comfy.run(add_training(with_model(), folder="alignguard_pairs/empty"))


@pytest.mark.parametrize(
    "folder", ["../models", "/etc", "..\\models", "alignguard_pairs/../../models", "C:/x"]
)
def test_a_folder_outside_input_is_refused(comfy, no_new_files, folder):
    with pytest.raises(ComfyError, match="must be inside ComfyUI's input folder"):
        comfy.post(add_training(with_model(), folder=folder))


def test_pairs_of_another_category_are_refused(comfy, no_new_files):
    with pytest.raises(ComfyError, match="2 of 2 pairs are not of the category hate"):
        comfy.run(add_training(with_model(), category="hate"))


def test_a_model_that_carries_a_lora_is_not_trained(comfy, no_new_files):
    graph = add_training(with_model())
    graph["lora"] = node("AlignGuardLoadSafetyExpert", model=("ckpt", 0), expert_name=SHOCKING, strength=1.0)
    graph["train"]["inputs"]["model"] = ["lora", 0]
    with pytest.raises(ComfyError, match="already carries a LoRA or an expert"):
        comfy.run(graph)


def test_co_merge_without_a_model_names_the_missing_sockets(comfy, no_new_files):
    with pytest.raises(ComfyError, match="it needs model, clip, calibration connected"):
        comfy.run(merged(method="co_merge"))


@pytest.mark.parametrize("prefix", ["", "../escaped", "/tmp/escaped", "a/../../../b"])
def test_a_file_name_outside_the_output_folder_is_refused(comfy, no_new_files, prefix):
    with pytest.raises(ComfyError, match="filename_prefix must name a file inside output/loras/alignguard"):
        comfy.run(saved(add_expert({}), "expert", 1, prefix=prefix))


@pytest.mark.parametrize(("name", "value"), [("dtype", "int4"), ("method", "magic"), ("objective", "magic")])
def test_an_unknown_option_value_is_refused(comfy, no_new_files, name, value):
    graphs = {
        "dtype": lambda: saved(add_expert({}), "expert", 1, dtype=value),
        "method": lambda: merged(method=value),
        "objective": lambda: add_training(with_model(), objective=value),
    }
    with pytest.raises(ComfyError, match=name):
        comfy.run(graphs[name]())
