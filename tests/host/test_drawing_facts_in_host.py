"""What names the weights that draw pairs is their content, whatever the host did with them before."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from api_graphs import SHOCKING
from base_folder import PACK, PACK_NAME, link_folder
from comfy_server import host_folder, server_environment

pytestmark = pytest.mark.host

PROOF = Path(__file__).with_name("drawing_facts_proof.py")


@pytest.fixture(scope="module")
def told(mini, tmp_path_factory):
    parent = tmp_path_factory.mktemp("pack")
    link_folder(PACK, parent / PACK_NAME)
    command = [sys.executable, PROOF, host_folder(), mini["checkpoint"], mini["experts"] / SHOCKING, parent]
    environment = server_environment()
    process = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def test_the_loaders_weights_have_one_name_whatever_was_drawn_before(told):
    assert set(told["plain"]) == {"model", "encoders"}
    assert told["plain after another loading"] == told["plain"]
    assert told["plain after an expert drew"] == told["plain after it drew"] == told["plain"]


def test_an_expert_is_named_by_its_content_and_not_by_when_it_was_applied(told):
    assert told["expert applied again"] == told["expert after another loading"] == told["expert"]
    assert told["late expert applied again"] == told["late expert"]


def test_everything_that_changes_the_pictures_has_a_name_of_its_own(told):
    different = ["plain", "expert", "weaker expert", "late expert", "later expert", "v_prediction", "zsnr"]
    different += ["rescaled", "rescaled less", "clip skip"]
    assert len({json.dumps(told[name]) for name in different}) == len(different)
    assert all(told[name]["model"] == told["plain"]["model"] for name in different)


def test_what_cannot_be_named_is_refused_by_name(told):
    assert "model_options.lock cannot be read: it holds a lock" in told["hidden"]
