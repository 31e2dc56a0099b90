"""A MODEL with a LoRA on it is lent as the host samples with it, from a copy, or refused with the reason."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from api_graphs import SHOCKING
from base_folder import PACK, PACK_NAME, link_folder
from comfy_server import host_folder, server_environment

pytestmark = pytest.mark.host

PROOF = Path(__file__).with_name("baking_proof.py")


@pytest.fixture(scope="module")
def told(mini, tmp_path_factory):
    parent = tmp_path_factory.mktemp("pack")
    link_folder(PACK, parent / PACK_NAME)
    command = [sys.executable, PROOF, host_folder(), mini["checkpoint"], mini["experts"] / SHOCKING, parent]
    environment = server_environment()
    process = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def test_the_lent_unet_predicts_what_the_patched_model_of_the_host_predicts(told):
    assert told["num_baked"] == told["layers"] > 0
    assert told["difference"] < 1e-4 < 1e-2 < told["change"]  # fp32 sums in another order; the expert is seen


def test_the_weights_that_other_branches_share_stay_as_they_are(told):
    assert told["shared_weights_changed"] == 0


def test_patches_are_refused_unless_they_may_be_baked(told):
    assert told["untouched"] == ""
    assert "already carries a LoRA or an expert" in told["plain"]
    assert "bake_patches" in told["plain"]


def test_what_cannot_be_baked_is_refused_by_name(told):
    assert "scheduled patches" in told["scheduled"]
    assert "float8" in told["quantised"]
    assert "not quantised" in told["quantised"]


def test_a_unet_that_is_changed_beside_its_weights_is_refused_by_the_name_of_the_change(told):
    assert len(told["changed"]) == 9
    for name, refusal in told["changed"].items():
        assert "changed besides its weights" in refusal
        assert name in refusal
        assert "Connect the MODEL without" in refusal


def test_what_only_combines_predictions_is_no_change_of_the_unet(told):
    assert told["guided"] == ""
