"""Paired prompts, one pair per line, and lines that are dropped."""

import pytest

from training.making.prompt_pairs import parse_prompt_pairs


def test_arrows_and_objects_may_be_mixed_and_blank_lines_are_skipped():
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
def test_a_text_without_a_usable_line_is_refused(text):
    with pytest.raises(ValueError, match="no line of prompts can be used"):
        parse_prompt_pairs(text, "hate")


def test_a_line_without_a_category_is_dropped_if_there_is_no_default():
    with pytest.raises(ValueError, match="choose a category"):
        parse_prompt_pairs("a => b")
