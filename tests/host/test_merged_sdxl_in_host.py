"""A merged SDXL file gives the same weights with the host's loader as with Apply, and so the same picture."""

import pytest

from base_folder import PACK

pytestmark = pytest.mark.host

LAYERS = 560  # attention projections of SDXL


def test_the_stock_loader_and_apply_patch_every_layer_to_the_same_bits(tmp_path, proof, pack_parent):
    results = proof("merged_sdxl_proof.py", tmp_path, pack_parent, PYTHONPATH=str(PACK / "tests"))
    assert results["layers"] == results["patched"] == LAYERS
    assert results["same_keys"]
    assert results["different"] == results["unchanged"] == results["warnings"] == []
