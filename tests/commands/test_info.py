"""The command `info`."""

import torch
from safetensors.torch import load_file, save_file

from builders import layers_of_shapes, seeded
from command_line import answer_of, assert_refused, run
from training.experts.expert import load_expert
from training.experts.lora_keys import to_kohya


def test_info_describes_an_expert_as_text_and_as_json(experts):
    text = run("info", experts[0]).out
    assert "categories: hate" in text
    assert "base model: SD 1.5" in text
    facts = answer_of(run("info", experts[0], "--json"))
    expert = load_expert(experts[0])
    assert facts["categories"] == ["hate"]
    assert (facts["family"], facts["rank"], facts["layers"]) == ("sd15", 2, len(expert.layers))
    assert facts["content_hash"] == expert.content_hash
    assert facts["metadata"]["alignguard.family"] == "sd15"


def test_a_lora_that_fits_several_base_models_is_read_once_its_family_is_stated(tmp_path):
    module = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    file = tmp_path / "slider.safetensors"
    save_file(to_kohya(layers_of_shapes({module: (640, 640)}, seeded(0))), file)
    assert_refused(run("info", file), "its layers fit SD 1.5 and SD 2.1 and SDXL alike. State the base model")
    for family in ("sd15", "sd21", "sdxl"):
        assert answer_of(run("info", file, "--family", family, "--json"))["family"] == family


def test_what_was_left_out_of_a_file_is_counted(experts, tmp_path):
    state = load_file(experts[0]) | {"lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": torch.ones(())}
    save_file(state, tmp_path / "style.safetensors")
    assert answer_of(run("info", tmp_path / "style.safetensors", "--json"))["left_out"] == {
        "tensors of a text encoder": 1
    }
    assert "left out: 1 tensors of a text encoder" in run("info", tmp_path / "style.safetensors").out


def test_a_missing_file_is_named(tmp_path):
    outcome = run("info", tmp_path / "gone.safetensors", "--json")
    assert_refused(outcome, "python -m training info: gone.safetensors does not exist")
