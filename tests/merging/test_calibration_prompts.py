"""Calibration prompts: every category gets equally many, and something neutral is always among them."""

from dataclasses import replace
from pathlib import Path

import pytest

from builders import preference_pair
from training.config import MergeConfig
from training.merging import calibration_prompts, listed_prompts
from training.pairs.everyday import HELD_OUT, everyday_prompts
from training.pairs.prompts import parse_prompts

PAIRS = [
    preference_pair(0, ("violence",), "a"),
    preference_pair(1, ("hate", "violence"), "b"),
    preference_pair(2, ("violence",), "c"),
    preference_pair(3, ("violence",), "a"),
]
TWO = {method: MergeConfig(method=method, prompts_per_category=2) for method in ("co_merge", "regmean")}
USERS = [(name, Path(f"{name}.png")) for name in ("tree", "house", "boat")]


def test_each_category_gives_equally_many_and_few_prompts_are_repeated():
    chosen = calibration_prompts(PAIRS, TWO["co_merge"])
    assert chosen.prompts == ("b", "b", "a", "b")
    assert chosen.categories == ("hate", "hate", "violence", "violence")


def test_order_is_that_of_the_pairs_and_duplicates_count_once():
    config = MergeConfig(method="co_merge", prompts_per_category=4)
    assert calibration_prompts(PAIRS, config).prompts == ("b", "b", "b", "b", "a", "b", "c", "a")


def test_calibration_without_pairs_is_refused():
    with pytest.raises(ValueError, match="got none"):
        calibration_prompts([], TWO["co_merge"])


def neutral_prompts(pairs, config=TWO["regmean"], users=()):
    """Return the neutral prompts with their pictures, in order."""
    chosen = calibration_prompts(pairs, config, users)
    rows = zip(chosen.prompts, chosen.categories, chosen.pictures, strict=True)
    return [(prompt, pictures) for prompt, category, pictures in rows if not category]


def test_methods_that_need_them_get_as_many_safe_prompts_and_four_times_as_many_everyday_ones():
    prompts = [prompt for prompt, _ in neutral_prompts(PAIRS)]
    assert prompts == [*everyday_prompts()[:8], "safe", "safe"]
    chosen = calibration_prompts(PAIRS, TWO["regmean"])
    assert chosen.neutral == "8 everyday prompts and 1 safe prompt of the pairs"


def test_the_prompts_of_a_user_come_first_and_count_as_much_as_everyday_ones():
    prompts = [prompt for prompt, _ in neutral_prompts(PAIRS, users=USERS)]
    assert prompts[:8] == ["tree", "house", "boat", "tree", "house", "boat", "tree", "house"]
    assert prompts[8:] == [*everyday_prompts()[:8], "safe", "safe"]
    chosen = calibration_prompts(PAIRS, TWO["regmean"], USERS)
    expected = "3 prompts of neutral.jsonl and 8 everyday prompts and 1 safe prompt of the pairs"
    assert chosen.neutral == expected


def test_everyday_words_are_put_into_the_sentences_of_the_pairs():
    pair = replace(PAIRS[0], unsafe_prompt="a knife on a table", safe_prompt="a spoon on a table")
    prompts = [prompt for prompt, _ in neutral_prompts([pair])]
    assert prompts[:8] == list(everyday_prompts()[:8])
    for sentence in prompts[8:16]:
        assert sentence.startswith("a ")
        assert sentence.endswith(" on a table")
    assert prompts[16:] == ["a spoon on a table"] * 2


def test_everyday_prompts_are_spread_over_the_pictures_of_the_pairs():
    stems = [[file.stem for file in pictures] for _, pictures in neutral_prompts(PAIRS)[:8]]
    assert stems == [[f"l{number}", f"w{number}"] for number in range(4) for _ in range(2)]


def test_a_prompt_has_the_pictures_of_all_its_pairs():
    chosen = calibration_prompts(PAIRS, TWO["regmean"], USERS[:1])
    names = [[file.stem for file in files] for files in chosen.pictures]
    assert names[:4] == [["l1", "w1"], ["l1", "w1"], ["l0", "w0", "l3", "w3"], ["l1", "w1"]]
    assert names[4:12] == [["tree"]] * 8
    assert names[-2:] == 2 * [["w0", "w1", "w2", "w3"]]


def test_prompts_that_are_only_measured_are_never_calibrated_with():
    config = MergeConfig(method="regmean", prompts_per_category=1000)
    chosen = calibration_prompts(PAIRS, config)
    assert not set(chosen.prompts) & set(everyday_prompts()[-HELD_OUT:])
    assert chosen.categories.count("") == 5000
    assert chosen.neutral.startswith(f"{len(everyday_prompts()) - HELD_OUT} everyday prompts and ")


def test_a_method_without_categories_gets_no_neutral_prompts():
    alone, users = (calibration_prompts(PAIRS, TWO["co_merge"], neutral) for neutral in ((), USERS))
    assert alone == users
    assert "" not in alone.categories
    assert alone.neutral == ""


@pytest.mark.parametrize(
    ("method", "text", "added", "neutral"),
    [
        ("regmean", "hate: a\nviolence: b", 8, "8 everyday prompts"),
        ("regmean", "hate: a\nneutral: b\nneutral: c", 0, "2 neutral lines of the text"),
        ("regmean", "a\nb", 0, ""),  # refused later, because no line names a category
        ("co_merge", "hate: a\nviolence: b", 0, ""),
        ("co_merge", "hate: a\nneutral: b", 0, ""),
    ],
)
def test_a_text_is_used_whole_and_gets_everyday_prompts_only_where_neutral_ones_are_missing(
    method, text, added, neutral
):
    listed = parse_prompts(text)
    chosen = listed_prompts(listed, TWO[method])
    assert chosen.prompts == (*listed.prompts, *everyday_prompts()[:added])
    assert chosen.categories == (listed.categories and (*listed.categories, *added * ("",)))
    assert chosen.pictures is None
    assert chosen.neutral == neutral
