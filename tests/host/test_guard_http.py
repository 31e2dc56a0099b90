"""Prompt Guard and Prompt Interpreter in the real server: trained, asked, and what they let through."""

import json

import pytest

from api_graphs import API, all_pixels, text_of

pytestmark = pytest.mark.host
HARMLESS, UNSAFE = "yellow boat, black ground", "a red skull on a purple ground"
PROMPT, GUARD, GUARDED, BASE = "3", "5", "12", "17"


def guard_graph(kind="guard", **inputs):
    """Return a shipped graph with other inputs of the node that asks, or with another `prompt`."""
    graph = json.loads((API / f"alignguard_prompt_{kind}.json").read_text(encoding="utf-8"))
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


def test_a_prompt_that_means_a_blocked_word_is_replaced(comfy):
    entry = comfy.run(guard_graph("interpreter"))
    report = text_of(entry, GUARD)
    assert report.startswith("blocked")
    assert "Reason: blocked word." in report
    assert text_of(entry, BASE).startswith("4 of 4 pictures unsafe")
    assert text_of(entry, GUARDED).startswith("0 of 4 pictures unsafe")
    assert (comfy.output_dir / "safety_guards" / "interpreter_00001_.safetensors").is_file()
    assert "skull" not in report


def test_a_prompt_that_comes_back_as_it_was_is_drawn_as_written(comfy):
    """It is among the captions, so it comes back word by word, and its score is exactly 0."""
    entry = comfy.run(guard_graph("interpreter", prompt=HARMLESS))
    assert text_of(entry, GUARD).startswith("passed: the score is below the threshold (0.000,")
    assert all_pixels(comfy, entry, "13") == all_pixels(comfy, entry, "18")


def test_an_interpreter_from_its_file_stops_what_it_was_told_to(comfy):
    saved = "interpreter_00001_.safetensors"  # of the tests above
    graph = guard_graph("interpreter", interpreter=saved, mode="stop", blocked_words="boat", prompt=HARMLESS)
    del graph[GUARD]["inputs"]["trained"], graph["4"]
    entry = comfy.run(graph)
    assert "13" not in entry["outputs"]
    assert "Prompt Interpreter blocked" in comfy.log_text()
