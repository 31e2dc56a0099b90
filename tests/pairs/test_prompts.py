"""Prompts as text: one per line, with or without a category."""

import pytest

from training.pairs.prompts import PromptList, parse_prompts


def test_each_line_is_a_prompt_and_blank_lines_are_skipped():
    assert parse_prompts("a red sword\n\n  a blue house  \n") == PromptList(
        ("a red sword", "a blue house"), None, 0
    )


def test_a_line_may_begin_with_its_category_in_any_spelling():
    parsed = parse_prompts("Violence: a red sword\nself harm: a spider\nneutral: a tree, a lake: both")
    assert parsed.categories == ("violence", "self-harm", "")  # the last is neutral
    assert parsed.prompts == ("a red sword", "a spider", "a tree, a lake: both")


@pytest.mark.parametrize(
    "line",
    ["style: flat, a red sword", "hate, violence: both", "a red sword: on black", ": a sword", "hate:"],
)
def test_any_other_colon_belongs_to_the_prompt(line):
    assert parse_prompts(line) == PromptList((line,), None, 0)


def test_categories_on_some_lines_only_are_refused_with_the_counts():
    with pytest.raises(ValueError, match="1 of 3 prompts begin with a category and 2 do not"):
        parse_prompts("violence: a red sword\na tree\na house")


def test_the_hard_rule_sees_the_category_too_and_counts_what_it_drops():
    parsed = parse_prompts("sexual: a child\nviolence: a red sword")
    assert (parsed.prompts, parsed.num_dropped) == (("a red sword",), 1)


def test_a_text_without_prompts_is_refused():
    with pytest.raises(ValueError, match="no prompt to use: 0 lines hold text"):
        parse_prompts(" \n")
