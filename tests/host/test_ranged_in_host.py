"""An expert on a part of the sampling draws what the host's own hook nodes draw, on every kind of MODEL."""

import pytest

from api_graphs import HATE, SHOCKING

pytestmark = pytest.mark.host

ROUNDING = 1e-4  # fp32 sums in another order, over six steps; an expert changes the latent by far more


@pytest.fixture(scope="module")
def results(mini, proof, pack_parent):
    experts = [mini["experts"] / name for name in (SHOCKING, HATE)]
    return proof("ranged_proof.py", mini["checkpoint"], *experts, pack_parent)


def is_equal_to_hooks(result: dict) -> bool:
    return result["from hooks"] < ROUNDING < 20 * ROUNDING < result["from base"]


def test_every_range_draws_what_the_hook_nodes_of_the_host_draw(results):
    assert len(results["ranges"]) == 4
    assert {name: is_equal_to_hooks(result) for name, result in results["ranges"].items()} == dict.fromkeys(
        results["ranges"], True
    ), results["ranges"]


def test_every_kind_of_sampler_switches_an_expert_where_the_hook_nodes_switch_it(results):
    assert len(results["samplers"]) == 4
    assert all(map(is_equal_to_hooks, results["samplers"].values())), results["samplers"]


def test_two_ranges_and_a_lora_stack_in_any_order(results):
    assert is_equal_to_hooks(results["stacked"]), results["stacked"]
    assert results["stacked"]["from the other order"] < ROUNDING


def test_a_model_that_refuses_hooks_takes_a_range_too(results):
    assert "Hooks not implemented" in results["without hooks"]["said to hooks"]
    assert is_equal_to_hooks(results["without hooks"]), results["without hooks"]


def test_nothing_of_an_expert_is_left_on_the_model_even_when_a_run_breaks_off(results):
    assert results["hooks left"] == 0
    assert results["failed run"] == results["base again"] == 0


def test_a_model_with_a_range_is_refused_for_training(results):
    assert "act on a part of the sampling" in results["refusal"]


def test_an_expert_acts_on_quantised_weights_whole_or_on_a_range_but_they_cannot_be_trained(results):
    quantised = results["quantised"]
    assert "float8" in quantised["type"]
    assert quantised["whole from base"] > 20 * ROUNDING
    # patched weights are rounded to fp8 again, the added update is not
    assert quantised["range from whole"] < quantised["range from base"]
    assert "Load the same model in fp32, fp16 or bf16" in quantised["refusal"]
