"""What this pack uses of ComfyUI exists, and a warning names what has moved since it was recorded."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from base_folder import PACK
from comfy_server import host_folder, server_environment

pytestmark = pytest.mark.host

PROOF = Path(__file__).with_name("interface_proof.py")
RECORDED = json.loads(Path(__file__).with_name("host_interface.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def interface():
    command = [sys.executable, str(PROOF), str(host_folder()), str(PACK)]
    process = subprocess.run(command, capture_output=True, text=True, env=server_environment())
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout[process.stdout.index("{\n") :])


def test_every_use_of_the_host_is_recorded(interface):
    assert interface.keys() == RECORDED.keys(), f"run {PROOF.name} on the oldest host again"


def test_nothing_that_the_pack_uses_is_gone_and_what_moved_is_named(interface):
    assert [name for name, found in interface.items() if found is None and RECORDED[name] is not None] == []
    moved = [
        f"{name}: {RECORDED[name]} -> {found}" for name, found in interface.items() if found != RECORDED[name]
    ]
    if moved:
        warnings.warn(f"The host's interface has moved: {'; '.join(moved)}", FutureWarning, stacklevel=1)
