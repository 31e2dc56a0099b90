"""A merged file of SDXL gives the host's own loader the weights that Apply gives, so the same picture."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from base_folder import PACK, PACK_NAME, link_folder
from comfy_server import host_folder, server_environment

pytestmark = pytest.mark.host

PROOF = Path(__file__).with_name("merged_sdxl_proof.py")
LAYERS = 560  # attention projections of SDXL


def test_the_stock_loader_patches_every_layer_to_the_bits_of_apply(tmp_path):
    link_folder(PACK, tmp_path / PACK_NAME)
    command = [sys.executable, PROOF, host_folder(), tmp_path, tmp_path]
    environment = server_environment() | {"PYTHONPATH": str(PACK / "tests")}
    process = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
    told = json.loads(process.stdout.splitlines()[-1])
    assert told["layers"] == told["patched"] == LAYERS
    assert told["same_keys"]
    assert told["different"] == told["unchanged"] == told["warnings"] == []
