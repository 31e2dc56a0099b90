"""An expert acts on quantised checkpoints as the stock LoRA loader does, where the host quantises weights."""

import pytest

from api_graphs import SHOCKING

pytestmark = pytest.mark.host

FORMATS = ("float8_e4m3fn", "mxfp8", "nvfp4", "int8_tensorwise")


@pytest.fixture(scope="module")
def results(mini, proof, pack_parent, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantised")
    found = proof("quantised_proof.py", mini["checkpoint"], mini["experts"] / SHOCKING, pack_parent, folder)
    if not found:
        pytest.skip("needs a newer ComfyUI, whose comfy-kitchen quantises weights (0.33.0 has it)")
    return found


@pytest.fixture(params=FORMATS)
def result(request, results):
    return results[request.param]


def test_the_expert_takes_the_unsafe_icon_out_of_every_picture_and_keeps_the_others(result):
    assert result["quantised layers"] > 50
    assert result["icons"]["base"] == ["skull", "skull", "star"]
    assert result["icons"]["expert"] == result["icons"]["expert on a range"] == ["smiley", "smiley", "star"]


def test_the_picture_is_the_stock_lora_loaders(result):
    assert result["from stock"] == 0


def test_drawing_does_not_change_what_identifies_the_weights(result):
    assert result["same facts after drawing"]


def test_training_says_what_to_load_instead(result):
    assert "Load the same model in fp32, fp16 or bf16" in result["refusal"]
