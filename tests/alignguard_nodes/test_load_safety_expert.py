"""Load and Apply Safety Expert when they are executed; the border to the host is a stand-in."""

import sys
import types
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from builders import layers_of_shapes, seeded
from training.experts.lora_keys import to_kohya

SHARED = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"  # of SD 1.5, SD 2.1 and SDXL


@pytest.fixture
def execute(pack, monkeypatch, tmp_path):
    """Return a function that loads a file with the node; the MODEL is the name of its family."""
    host = types.ModuleType("pack.alignguard_nodes.host")
    host.expert_files = list
    host.expert_path = lambda name: tmp_path / name
    host.family_of = lambda model: (model, 768)
    host.Blocked = lambda message: SimpleNamespace(message=message)
    host.apply_expert = lambda model, expert, *, strength, **_: (f"{model} with {expert.name}", "applied")
    monkeypatch.setitem(sys.modules, host.__name__, host)
    pack("alignguard_nodes").host = host

    def run(extra=(), **inputs):
        state = to_kohya(layers_of_shapes({SHARED: (640, 640)}, seeded(0)))
        save_file(state | {key: torch.ones(()) for key in extra}, tmp_path / "style.safetensors")
        node = pack("alignguard_nodes.load_safety_expert").LoadSafetyExpert
        return node.execute("style.safetensors", 1.0, **inputs).values

    run.pack = pack
    return run


@pytest.fixture(autouse=True)
def _outputs(pack):
    """Let the stand-in of a node's result have no preview."""
    sys.modules["comfy_api.latest"].io.NodeOutput = lambda *values, ui=None: SimpleNamespace(values=values)


def test_a_file_that_fits_several_base_models_asks_which(execute):
    with pytest.raises(ValueError, match="its layers fit SD 1.5 and SD 2.1 and SDXL alike"):
        execute()


@pytest.mark.parametrize(("base_model", "family"), [("SD 1.5", "sd15"), ("SD 2.1", "sd21"), ("SDXL", "sdxl")])
def test_the_chosen_base_model_decides(execute, base_model, family):
    assert execute(base_model=base_model)[1].family == family


def test_a_connected_model_decides_unless_another_is_chosen(execute):
    patched, expert = execute(model="sdxl")
    assert (patched, expert.family) == ("sdxl with style.safetensors", "sdxl")
    assert execute(model="sdxl", base_model="SD 1.5")[1].family == "sd15"


def test_a_lora_of_the_text_encoder_too_is_loaded_but_not_applied(execute):
    extra = ["lora_te_text_model_encoder_layers_0_mlp_fc1.alpha"]
    _, expert = execute(extra, base_model="SD 1.5")
    assert expert.left_out == {"tensors of a text encoder": 1}
    with pytest.raises(ValueError, match="style.safetensors also changes what an expert cannot hold"):
        execute(extra, model="sd15")
    apply = execute.pack("alignguard_nodes.apply_safety_expert").ApplySafetyExpert
    with pytest.raises(ValueError, match="style.safetensors also changes what an expert cannot hold"):
        apply.execute("sd15", expert, 1.0, 0.0, 1.0)
