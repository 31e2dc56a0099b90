"""Calibration prompts: every category speaks equally often."""

from pathlib import Path

import pytest

from training.config import MergeConfig
from training.merging import calibration_prompts
from training.preference import PreferencePair


def pair(number, categories, prompt):
    return PreferencePair(str(number), categories, prompt, "safe", Path("w.png"), Path("l.png"))


PAIRS = [
    pair(0, ("violence",), "a"),
    pair(1, ("hate", "violence"), "b"),
    pair(2, ("violence",), "c"),
    pair(3, ("violence",), "a"),
]


def test_each_category_gives_equally_many_and_few_prompts_are_repeated():
    config = MergeConfig(prompts_per_category=2)
    assert calibration_prompts(PAIRS, config) == ("b", "b", "a", "b")


def test_order_is_that_of_the_pairs_and_doubles_count_once():
    config = MergeConfig(prompts_per_category=4)
    assert calibration_prompts(PAIRS, config) == ("b", "b", "b", "b", "a", "b", "c", "a")


def test_calibration_without_pairs_is_refused():
    with pytest.raises(ValueError, match="got none"):
        calibration_prompts([], MergeConfig())
