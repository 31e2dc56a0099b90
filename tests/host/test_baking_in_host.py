"""The UNet of a patched MODEL is lent as a copy that computes what the host samples with, or is refused."""

import pytest

from api_graphs import SHOCKING

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def results(mini, proof, pack_parent):
    return proof("baking_proof.py", mini["checkpoint"], mini["experts"] / SHOCKING, pack_parent)


def test_the_lent_unet_predicts_the_same_as_the_patched_model_of_the_host(results):
    assert results["num_baked"] == results["layers"] > 0
    assert results["difference"] < 1e-4 < 1e-3 < results["change"]  # fp32 sums in another order


def test_weights_shared_with_other_branches_do_not_change(results):
    assert results["shared_weights_changed"] == 0


def test_a_patched_model_is_refused_unless_baking_is_allowed(results):
    assert results["untouched"] == ""
    assert "already carries a LoRA or an expert" in results["plain"]
    assert "bake_patches" in results["plain"]


def test_patches_that_cannot_be_baked_are_named_in_the_refusal(results):
    assert "scheduled patches" in results["scheduled"]
    assert "float8" in results["quantised"]
    assert "not quantised" in results["quantised"]


def test_a_unet_changed_besides_its_weights_is_refused_and_the_change_is_named(results):
    assert len(results["changed"]) == 9
    for name, refusal in results["changed"].items():
        assert "changed besides its weights" in refusal
        assert name in refusal
        assert "Connect the MODEL without" in refusal


def test_changes_that_only_combine_predictions_are_accepted(results):
    assert results["guided"] == ""
