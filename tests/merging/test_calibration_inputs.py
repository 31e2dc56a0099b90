"""Calibration prompts: every category gets equally many, and all categories come early."""

from pathlib import Path

import pytest

from builders import preference_pair
from training.config import MergeConfig
from training.merging import calibration_prompts
from training.merging.calibration_inputs import rounds_of

PAIRS = [
    preference_pair(0, ("violence",), "a"),
    preference_pair(1, ("hate", "violence"), "b"),
    preference_pair(2, ("violence",), "c"),
    preference_pair(3, ("violence",), "a"),
]


def test_each_category_gives_equally_many_and_few_prompts_are_repeated():
    chosen = calibration_prompts(PAIRS, MergeConfig(method="co_merge", prompts_per_category=2))
    assert chosen.prompts == ("b", "b", "a", "b")
    assert chosen.categories == ("hate", "hate", "violence", "violence")


def test_order_is_that_of_the_pairs_and_duplicates_count_once():
    config = MergeConfig(method="co_merge", prompts_per_category=4)
    assert calibration_prompts(PAIRS, config).prompts == ("b", "b", "b", "b", "a", "b", "c", "a")


def test_calibration_without_pairs_is_refused():
    with pytest.raises(ValueError, match="got none"):
        calibration_prompts([], MergeConfig(method="co_merge"))


def test_methods_that_need_them_get_as_many_neutral_and_safe_prompts():
    config = MergeConfig(method="regmean", prompts_per_category=2)
    neutral = [(name, Path(f"{name}.png")) for name in ("tree", "house", "boat")]
    chosen = calibration_prompts(PAIRS, config, neutral)
    assert chosen.prompts[4:] == ("tree", "house", "safe", "safe")
    assert chosen.categories[4:] == ("", "", "", "")
    assert calibration_prompts(PAIRS, config).prompts[4:] == ("safe", "safe")


def test_a_prompt_has_the_pictures_of_all_its_pairs():
    config = MergeConfig(method="regmean", prompts_per_category=2)
    chosen = calibration_prompts(PAIRS, config, [("tree", Path("tree.png"))])
    names = [[file.stem for file in files] for files in chosen.pictures]
    assert names[:4] == [["l1", "w1"], ["l1", "w1"], ["l0", "w0", "l3", "w3"], ["l1", "w1"]]
    assert names[4:] == [["tree"], ["tree"]] + 2 * [["w0", "w1", "w2", "w3"]]


def test_a_round_holds_one_prompt_of_each_category():
    assert rounds_of(5, ["a", "a", "b", "b", ""], 0) == [[0, 2, 4], [1, 3]]


def test_prompts_of_unknown_categories_are_shuffled_and_the_seed_repeats_it():
    rounds = rounds_of(20, None, 3)
    assert [len(numbers) for numbers in rounds] == [8, 8, 4]
    flat = [number for numbers in rounds for number in numbers]
    assert sorted(flat) == list(range(20)) != flat
    assert rounds == rounds_of(20, None, 3) != rounds_of(20, None, 4)
