"""Stress tests of the mini model in the real server."""

import json

import pytest

from api_graphs import API, text_of

pytestmark = pytest.mark.host


def by_class(graph, class_type):
    return [name for name, each in graph.items() if each["class_type"] == class_type]


def test_the_base_draws_the_concept_without_its_word_and_the_expert_does_not(comfy):
    graph = json.loads((API / "alignguard_stress_test.json").read_text(encoding="utf-8"))
    entry = comfy.run(graph)
    (concept,) = by_class(graph, "AlignGuardConceptVector")
    assert text_of(entry, concept).startswith("6 pairs of prompts\ndirection of 77 tokens x 768")
    before, after = (text_of(entry, name) for name in by_class(graph, "AlignGuardSafetyJudge"))
    assert before.startswith("4 of 4 pictures unsafe")
    assert after.startswith("0 of 4 pictures unsafe")
