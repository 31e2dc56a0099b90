"""An expert beside other nodes draws what the host draws with its own loader or hooks for the same file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from api_graphs import HATE, SHOCKING
from base_folder import PACK, PACK_NAME, link_folder
from comfy_server import host_folder, server_environment

pytestmark = pytest.mark.host

PROOF = Path(__file__).with_name("other_nodes_proof.py")
ROUNDING = 1e-4  # fp32 sums in another order, over six steps
CHANGE = 20 * ROUNDING  # what the other node changes at least


@pytest.fixture(scope="module")
def results(mini, tmp_path_factory):
    parent = tmp_path_factory.mktemp("pack")
    link_folder(PACK, parent / PACK_NAME)
    experts = [mini["experts"] / name for name in (SHOCKING, HATE)]
    command = [sys.executable, PROOF, host_folder(), mini["checkpoint"], *experts, parent]
    environment = server_environment()
    process = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("node", "ways"),
    [
        ("orders", ["first", "between", "last"]),
        ("freeu", ["behind", "before", "behind a part", "before a part"]),
        ("controlnet", ["whole", "part"]),
        ("hooks", ["whole", "part"]),
    ],
)
def test_an_expert_beside_it_draws_what_the_host_draws(results, node, ways):
    assert list(results[node]) == ways
    for way, result in results[node].items():
        assert result["from host"] < ROUNDING < CHANGE < result["from alone"], (way, result)
