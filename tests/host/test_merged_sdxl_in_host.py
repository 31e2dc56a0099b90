"""A merged SDXL file gives the same weights with the host's loader as with Apply, and so the same picture."""

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


def test_the_stock_loader_and_apply_patch_every_layer_to_the_same_bits(tmp_path):
    link_folder(PACK, tmp_path / PACK_NAME)
    command = [sys.executable, PROOF, host_folder(), tmp_path, tmp_path]
    environment = server_environment() | {"PYTHONPATH": str(PACK / "tests")}
    process = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
    results = json.loads(process.stdout.splitlines()[-1])
    assert results["layers"] == results["patched"] == LAYERS
    assert results["same_keys"]
    assert results["different"] == results["unchanged"] == results["warnings"] == []
