"""The host's own network is trained, not a copy: SD 1.5 as in diffusers, flows as the host runs them."""

import math
import os
import re

import pytest

from api_graphs import SHOCKING
from base_folder import PACK
from tiny_sd3 import DEPTH, sd3_checkpoint
from training.merging import MERGE_METHODS
from training.models.flow import FLOW_FAMILIES
from training.rules.categories import FAMILY_NAMES

pytestmark = pytest.mark.host

LAYERS = {  # attention layers of the small networks
    "sd3": 4 * DEPTH - 1,  # its last block has no projection of the text
    "flux1": 2 * 4 + 2 * 2,
    "flux2": 2 * 4 + 2 * 2,
    "zimage": 4 * 2,
    "qwenimage": 2 * 8 - 2,  # nothing reads the text that its last block makes
    "krea2": 2 * 5,
    "anima": 2 * 8,
}
# Krea 2's picture shares all layers with the text.
NO_OWN_LAYERS = "the network has no layer for targets self-attention. Choose other targets."
ARCHITECTURES = {
    "sd3": "stable-diffusion-3/lora",
    "flux1": "flux-1-dev/lora",
    "flux2": "flux-2-klein/lora",
    "zimage": "zimage/lora",
    "qwenimage": "qwen-image/lora",
    "krea2": "krea-2/lora",
    "anima": "anima/lora",
}


@pytest.fixture(scope="module")
def sd15(mini, proof, pack_parent):
    paths = os.pathsep.join(map(str, (PACK, PACK / "tests")))
    return proof("border_proof.py", mini["checkpoint"], pack_parent, PYTHONPATH=paths)


@pytest.fixture(scope="module")
def checkpoint(mini, tmp_path_factory):
    return sd3_checkpoint(tmp_path_factory.mktemp("sd3") / "tiny_sd3.safetensors", mini["checkpoint"])


@pytest.fixture(scope="module", params=FLOW_FAMILIES)
def flow(request, mini, checkpoint, proof, pack_parent, tmp_path_factory):
    """The results of `flow_proof.py` for a family."""
    arguments = (request.param, checkpoint, mini["checkpoint"], mini["experts"] / SHOCKING)
    return proved(proof("flow_proof.py", *arguments, tmp_path_factory.mktemp("flow"), pack_parent))


@pytest.fixture(scope="module", params=FLOW_FAMILIES)
def nodes(request, mini, checkpoint, proof, pack_parent, tmp_path_factory):
    """The results of `flow_nodes_proof.py` for a family, and the family."""
    arguments = (request.param, checkpoint, mini["checkpoint"], mini["pairs"] / "shocking")
    results = proof("flow_nodes_proof.py", *arguments, tmp_path_factory.mktemp("nodes"), pack_parent)
    return proved(results) | {"family": request.param}


def proved(results: dict) -> dict:
    """Return the results of a proof; skip the test if the host lacks the family."""
    if "skipped" in results:
        pytest.skip(results["skipped"])
    return results


def test_sd15_learns_the_same_on_the_hosts_network_as_in_diffusers(sd15):
    assert sd15["layers"] > 0
    assert sd15["loss"] < 1e-4  # both compute in fp32, in another order
    assert sd15["gradients"] < sd15["worst_gradient"] < 1e-4
    assert sd15["expert"] < 1e-3 < sd15["learned"]


def test_recomputing_the_hosts_blocks_changes_nothing(sd15):
    assert sd15["recomputed"] < 1e-5


def test_training_leaves_the_model_of_the_host_as_it_was(sd15, flow):
    assert sd15["changed_weights"] == sd15["adapters_left"] == flow["changed_weights"] == 0


def test_the_lent_network_predicts_the_velocity_of_the_hosts_model(flow):
    assert flow["velocity"] < 1e-4  # the host's is (noisy - denoised) / sigma, which rounds at a small sigma
    assert flow["sigmas"] == 0


def test_the_loss_of_a_pair_is_that_of_the_hosts_own_predictions(flow):
    assert abs(flow["first_loss"]) < 1e-6  # log 2 at the start
    assert flow["loss"] == pytest.approx(flow["loss_by_hand"], rel=1e-3)  # 2500 times a difference of errors
    assert abs(flow["loss"] - math.log(2)) > 0.1  # and not where nothing was changed


def test_every_layer_of_every_target_gets_a_gradient(flow):
    own = flow["without_gradient"].pop("self-attention")
    assert flow["without_gradient"] == {"attention": [], "attention+ff": []}
    assert own == ([NO_OWN_LAYERS] if flow["family"] == "krea2" else [])


def test_two_steps_change_the_expert_and_their_memory_is_known_before(flow):
    first, second = flow["losses"]
    assert first == pytest.approx(math.log(2), abs=1e-6)
    assert math.isfinite(second)
    assert abs(second - first) > 0.1  # of a network that the first step has changed
    assert flow["peak"] > 0


def test_the_stock_loader_takes_every_key_and_changes_the_model_as_apply_does(flow):
    assert flow["layers"] == flow["patched"] == flow["attention"] == LAYERS[flow["family"]]
    assert flow["warnings"] == []
    assert flow["same_keys"]
    assert flow["different"] == flow["unchanged"] == []
    assert flow["sentence"] == f"All {flow['layers']} layers of the expert match this model."


def test_the_file_is_read_as_it_was_written_and_its_report_names_the_family(flow):
    assert flow["read_family"] == flow["family"]
    assert flow["read_hash"]
    assert f"base model: {FAMILY_NAMES[flow['family']]}" in flow["report"]
    assert re.search(r"(blocks|layers)\.1 ", flow["report"])


def test_a_merge_by_every_method_fits_the_model(flow):
    assert flow["merged"] == {
        name: flow["layers"] for name, method in MERGE_METHODS.items() if method.collector is None
    }


def test_an_expert_of_another_family_is_refused_by_name(flow):
    label = FAMILY_NAMES[flow["family"]]
    assert f"was trained for SD 1.5 (text width 768); this model is {label}" in flow["refused"]["sd15 here"]
    assert f"was trained for {label}; this model is SD 1.5" in flow["refused"]["on sd15"]


def test_the_training_node_writes_an_expert_of_the_family(nodes):
    for expert in nodes["experts"]:
        assert expert["family"] == nodes["family"]
        assert expert["layers"] == LAYERS[nodes["family"]]
        assert len(expert["losses"]) == 2
        assert expert["metadata"]["modelspec.architecture"] == ARCHITECTURES[nodes["family"]]
        assert expert["metadata"]["modelspec.prediction_type"] == "flow"
        assert f"base model: {FAMILY_NAMES[nodes['family']]}" in expert["report"]
        assert " of weights included; " in expert["report"]  # the memory was computed before the first step


@pytest.mark.parametrize("method", ["regmean", "co_merge"])
def test_the_merge_node_calibrates_on_pictures_or_on_prompts_of_any_length(nodes, method):
    merged = nodes["merged"][method]
    assert (merged["family"], merged["layers"]) == (nodes["family"], LAYERS[nodes["family"]])
    assert f"merge method: {method}" in merged["report"]


def test_the_model_draws_pairs(nodes):
    assert nodes["made"].startswith("1 pairs made, 0 given up.")


def test_the_network_attends_to_what_the_host_makes_of_a_prompt(nodes):
    assert nodes["prompt"] == {"names": True, "difference": 0}


def test_an_expert_of_a_flow_acts_on_the_whole_sampling_or_on_a_part(nodes):
    assert nodes["applied"] == {"whole": LAYERS[nodes["family"]], "half": 0, "model": 0}
