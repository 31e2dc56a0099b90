"""For every family at full size with random weights, the host's model and ours agree, experts included."""

import os

import pytest
from safetensors import safe_open

from base_folder import PACK
from training.models import FAMILIES

pytestmark = [pytest.mark.host, pytest.mark.slow]

PYTHONPATH = os.pathsep.join(map(str, (PACK, PACK / "tests", PACK / "tests" / "host")))
# Both compute in fp32 but order their sums differently; a wrong name, scale or size gives a far larger error.
TOLERANCE = 1e-4
LAYERS = {"sd15": 128, "sd21": 128, "sdxl": 560}  # attention projections of the published models
ARCHITECTURES = {
    "sd15": "stable-diffusion-v1/lora",
    "sd21": "stable-diffusion-v2-768-v/lora",
    "sdxl": "stable-diffusion-xl-v1-base/lora",
}
PEAK_GIB = 14  # of 24 in CI


@pytest.mark.parametrize("name", FAMILIES)
def test_our_model_agrees_with_the_hosts_and_the_host_loads_the_expert(name, tmp_path, proof):
    results = proof("full_size_proof.py", name, tmp_path, PYTHONPATH=PYTHONPATH)
    assert results["family"] == name
    for part in ("unet", "text", "schedule", "update", *(["pooled"] if name == "sdxl" else [])):
        assert results[part] <= TOLERANCE, results
    assert len(results["losses"]) == 2
    assert results["layers"] == results["patched"] == LAYERS[name]
    assert results["warnings"] == []
    assert results["peak_gib"] < PEAK_GIB
    with safe_open(tmp_path / "expert.safetensors", "pt") as file:
        assert file.metadata()["modelspec.architecture"] == ARCHITECTURES[name]
