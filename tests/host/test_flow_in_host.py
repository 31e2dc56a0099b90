"""The host's own network is trained in place of a copy: SD 1.5 as in diffusers, SD 3 as the host runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from api_graphs import SHOCKING
from base_folder import PACK, PACK_NAME, link_folder
from comfy_server import host_folder, server_environment
from tiny_sd3 import DEPTH, sd3_checkpoint
from training.merging import MERGE_METHODS

pytestmark = pytest.mark.host

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def pack_parent(tmp_path_factory):
    parent = tmp_path_factory.mktemp("pack")
    link_folder(PACK, parent / PACK_NAME)
    return parent


def proof(name, *arguments):
    command = [sys.executable, HERE / name, host_folder(), *arguments]
    process = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=server_environment()
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def sd15(mini, pack_parent):
    return proof("border_proof.py", mini["checkpoint"], pack_parent)


@pytest.fixture(scope="module")
def sd3(mini, pack_parent, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd3")
    checkpoint = sd3_checkpoint(folder / "tiny_sd3.safetensors", mini["checkpoint"])
    return proof(
        "flow_proof.py", checkpoint, mini["checkpoint"], mini["experts"] / SHOCKING, folder, pack_parent
    )


@pytest.fixture(scope="module")
def nodes(mini, pack_parent, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes")
    checkpoint = sd3_checkpoint(folder / "tiny_sd3.safetensors", mini["checkpoint"])
    return proof("flow_nodes_proof.py", checkpoint, mini["pairs"] / "shocking", folder, pack_parent)


def test_sd15_learns_the_same_on_the_hosts_network_as_in_diffusers(sd15):
    assert sd15["layers"] > 0
    assert sd15["loss"] < 1e-4  # both compute in fp32, in another order
    assert sd15["gradients"] < sd15["worst_gradient"] < 1e-4
    assert sd15["expert"] < 1e-3 < sd15["learned"]


def test_recomputing_the_hosts_blocks_changes_nothing(sd15):
    assert sd15["recomputed"] < 1e-5


def test_training_leaves_the_model_of_the_host_as_it_was(sd15, sd3):
    assert sd15["changed_weights"] == sd15["adapters_left"] == sd3["changed_weights"] == 0


def test_the_lent_network_predicts_the_velocity_of_the_hosts_model(sd3):
    assert sd3["velocity"] < 1e-4  # the host's is (noisy - denoised) / sigma, which rounds at a small sigma
    assert sd3["sigmas"] == 0


def test_the_loss_of_a_pair_is_that_of_the_hosts_own_predictions(sd3):
    assert abs(sd3["first_loss"]) < 1e-6  # log 2 at the start
    assert sd3["loss"] == pytest.approx(sd3["loss_by_hand"], rel=1e-3)  # 2500 times a difference of errors
    assert abs(sd3["loss"] - sd3["first_loss"]) > 0.1


def test_every_layer_of_every_target_gets_a_gradient(sd3):
    assert sd3["without_gradient"] == {"attention": [], "attention+ff": [], "self-attention": []}


def test_two_steps_learn_and_their_memory_is_known_before(sd3):
    assert len(sd3["losses"]) == 2
    assert sd3["losses"][1] < sd3["losses"][0]
    assert sd3["peak"] > 0


def test_the_stock_loader_takes_every_key_and_changes_the_model_as_apply_does(sd3):
    assert sd3["layers"] == sd3["patched"] == 4 * DEPTH - 1  # the last block has no projection of the text
    assert sd3["warnings"] == []
    assert sd3["same_keys"]
    assert sd3["different"] == sd3["unchanged"] == []
    assert sd3["sentence"] == f"All {sd3['layers']} layers of the expert match this model."


def test_the_file_is_read_as_it_was_written_and_its_report_names_the_family(sd3):
    assert sd3["read_family"] == sd3["family"] == "sd3"
    assert sd3["read_hash"]
    assert "base model: SD 3" in sd3["report"]
    assert "joint_blocks.1" in sd3["report"]


def test_a_merge_by_every_method_fits_the_model(sd3):
    assert sd3["merged"] == {
        name: sd3["layers"] for name, method in MERGE_METHODS.items() if method.collector is None
    }


def test_an_expert_of_another_family_is_refused_by_name(sd3):
    assert "was trained for SD 1.5 (text width 768); this model is SD 3" in sd3["refused"]["sd15 on sd3"]
    assert "was trained for SD 3; this model is SD 1.5" in sd3["refused"]["sd3 on sd15"]


def test_the_training_node_writes_an_expert_of_sd3(nodes, sd3):
    for expert in nodes["experts"]:
        assert expert["family"] == "sd3"
        assert expert["layers"] == sd3["layers"]
        assert len(expert["losses"]) == 2
        assert expert["metadata"]["modelspec.architecture"] == "stable-diffusion-3/lora"
        assert expert["metadata"]["modelspec.prediction_type"] == "flow"
        assert "base model: SD 3" in expert["report"]
        assert " of weights included; " in expert["report"]  # the memory was computed before the first step


@pytest.mark.parametrize("method", ["regmean", "co_merge"])
def test_the_merge_node_calibrates_on_pictures_or_on_prompts_of_any_length(nodes, sd3, method):
    merged = nodes["merged"][method]
    assert (merged["family"], merged["layers"]) == ("sd3", sd3["layers"])
    assert f"merge method: {method}" in merged["report"]


def test_the_model_draws_pairs(nodes):
    assert nodes["made"].startswith("1 pairs made, 0 given up.")


def test_an_expert_of_sd3_acts_on_the_whole_sampling_or_on_a_part(nodes, sd3):
    assert nodes["applied"] == {"whole": sd3["layers"], "half": 0, "model": 0}
