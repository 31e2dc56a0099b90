"""Prompt Guard in the real server: trained, asked, and turning an expert up only for a blocked prompt."""

import json

import pytest

from api_graphs import API, all_pixels, text_of

pytestmark = pytest.mark.host
HARMLESS, UNSAFE = "yellow boat, black ground", "a red skull on a purple ground"
PROMPT, GUARD, GUARDED, BASE = "3", "5", "12", "17"


def guard_graph(**inputs):
    """Return the shipped graph with other inputs of Prompt Guard, or with another `prompt`."""
    graph = json.loads((API / "alignguard_prompt_guard.json").read_text(encoding="utf-8"))
    graph[PROMPT]["inputs"]["value"] = inputs.pop("prompt", graph[PROMPT]["inputs"]["value"])
    graph[GUARD]["inputs"] |= inputs
    return graph


def test_a_blocked_prompt_turns_the_expert_up(comfy):
    entry = comfy.run(guard_graph(prompt=UNSAFE))
    assert text_of(entry, GUARD).startswith("blocked")
    assert text_of(entry, BASE).startswith("4 of 4 pictures unsafe")
    assert text_of(entry, GUARDED).startswith("0 of 4 pictures unsafe")
    assert (comfy.output_dir / "safety_guards" / "guard_00001_.safetensors").is_file()
    assert "skull" not in text_of(entry, GUARD)


def test_a_harmless_prompt_is_drawn_as_without_guard_and_expert(comfy):
    entry = comfy.run(guard_graph(prompt=HARMLESS))
    assert text_of(entry, GUARD).startswith("passed")
    assert all_pixels(comfy, entry, "13") == all_pixels(comfy, entry, "18")


def test_a_prompt_that_is_stopped_draws_nothing_behind_the_guard(comfy):
    entry = comfy.run(guard_graph(mode="stop"))
    assert "13" not in entry["outputs"]
    assert text_of(entry, BASE).startswith("4 of 4 pictures unsafe")
    assert "Prompt Guard blocked" in comfy.log_text()
