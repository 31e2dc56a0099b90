"""Paired prompts, a pair a line, and what is not one."""

import pytest

from training.making.prompt_pairs import parse_prompt_pairs


def test_arrows_and_objects_may_be_mixed_and_blank_lines_do_not_count():
    row = '{"id": 7, "unsafe_prompt": "worse", "safe_prompt": "fine", "category": ["Hate"]}'
    text = f"\ufeffbad => good\n\n{row}\n"
    first, second = parse_prompt_pairs(text, "violence").pairs
    assert first[1:] == (("violence",), "bad", "good")
    assert second == ("7", ("hate",), "worse", "fine")


def test_the_same_line_has_the_same_id_wherever_it_stands():
    one, other = parse_prompt_pairs("a => b\nc => d", "hate"), parse_prompt_pairs("c => d\na => b", "hate")
    assert {pair.id for pair in one.pairs} == {pair.id for pair in other.pairs}


def test_every_line_that_cannot_be_used_is_named_with_its_reason():
    text = "a => b\na => b\nno arrow\na => b => c\nsame => Same\nx => \n{broken\n...prompt... => y"
    assert parse_prompt_pairs(text, "hate").dropped == {
        "the id occurs before": ["line 2"],
        "not a JSON object on one line": ["line 3", "line 4", "line 7"],
        "both prompts are the same": ["line 5"],
        "a field is missing, empty or of the wrong type": ["line 6"],
        "a prompt is a placeholder": ["line 8"],
    }


@pytest.mark.parametrize("text", ["", "\n\n", "no arrow", "a => a"])
def test_lines_of_which_none_can_be_used_are_refused(text):
    with pytest.raises(ValueError, match="no line of prompts can be used"):
        parse_prompt_pairs(text, "hate")


def test_a_line_without_a_category_is_dropped_where_none_is_given():
    with pytest.raises(ValueError, match="choose a category"):
        parse_prompt_pairs("a => b")
