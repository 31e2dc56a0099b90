"""Dual Latent Guidance inside a real ComfyUI: what it draws, what it costs, and what it refuses."""

import pytest

pytestmark = pytest.mark.host

ROUNDING = 1e-4  # fp32 sums of batches of another size, over six steps


@pytest.fixture(scope="module")
def results(mini, proof, pack_parent):
    return proof("dual_latent_proof.py", mini["checkpoint"], pack_parent)


def test_the_whole_weight_draws_the_safe_prompt_bit_for_bit_with_every_sampler(results):
    assert results["prompts differ"] > 20 * ROUNDING
    assert results["whole weight"] == dict.fromkeys(("euler", "ddim", "heun", "dpmpp_2m"), 0.0)
    assert results["cfg 1"] == 0


def test_a_guidance_that_never_starts_draws_the_prompt_bit_for_bit(results):
    assert results["never starts"] == 0


def test_more_weight_and_an_earlier_start_lead_further_from_the_prompt(results):
    assert results["by weight"] == sorted(results["by weight"])
    assert results["by start"] == sorted(results["by start"], reverse=True)
    assert results["by start"][-1] > 0


def test_a_guided_step_leads_to_the_weighted_sum_of_both_latents(results):
    assert results["sum of latents"] < ROUNDING


def test_a_context_that_is_the_prompt_changes_nothing_but_rounding(results):
    assert results["same context"] < ROUNDING


def test_a_start_switches_where_the_host_switches_ranges_of_steps(results):
    assert results["only half the steps"] < ROUNDING


def test_each_region_of_a_prompt_is_guided_in_its_place(results):
    assert results["regions"]["from safe regions"] == 0
    assert results["regions"]["from the regions"] > 20 * ROUNDING


def test_a_second_node_guides_what_the_first_one_gives(results):
    assert results["two nodes"] < ROUNDING


def test_nothing_is_left_on_the_model_even_when_a_run_breaks_off(results):
    assert results["failed run"] == results["base again"] == 0


def test_it_costs_at_most_half_as_much_again(results):
    assert results["time"] <= 1.55, results["time"]


def test_a_second_prompt_and_hooks_are_refused(results):
    assert "draws middle" in results["refused guider"]
    assert "carries hooks" in results["refused hooks"]
