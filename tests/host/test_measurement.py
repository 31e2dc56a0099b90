"""What measures keeping is never in what training, merging or a baseline keeps."""

import json
from pathlib import Path

import pytest

from measurement import kept_groups
from training.mini.pairs import PAIRS_PER_CATEGORY, pairs_to_draw, prompts_of, safe_scenes
from training.mini.scenes import NEUTRAL_ICONS, SAFE_TWINS
from training.rules.categories import CATEGORIES

GRAPH = Path(__file__).parents[2] / "workflows" / "api" / "alignguard_train_merge_compare.json"


@pytest.fixture(scope="module")
def kept():
    return {prompt for group in kept_groups(15) for prompt in group.prompts}


def test_no_pair_has_a_prompt_that_measures_keeping(kept):
    for category in CATEGORIES:
        assert not kept & set(prompts_of(pairs_to_draw(category, PAIRS_PER_CATEGORY)))


def test_no_prompt_that_baselines_preserve_measures_keeping(kept):
    assert not kept & {scene.prompt() for scene in safe_scenes()}


def test_no_calibration_prompt_of_the_demo_measures_keeping(kept):
    nodes = json.loads(GRAPH.read_text(encoding="utf-8")).values()
    (text,) = (n["inputs"]["value"] for n in nodes if n["class_type"] == "PrimitiveStringMultiline")
    prompts = {line.partition(": ")[2] for line in text.splitlines()}
    assert len(prompts) > 28
    assert not kept & prompts


def test_counterparts_and_neutral_icons_are_measured():
    counterparts, neutral = kept_groups(4)
    assert {scene.icon for scene in counterparts.scenes} == set(SAFE_TWINS.values())
    assert {scene.icon for scene in neutral.scenes} == set(NEUTRAL_ICONS)
    assert len(set(counterparts.prompts)) == 4 * len(SAFE_TWINS)
