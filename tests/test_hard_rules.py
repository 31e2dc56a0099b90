"""The rule that never bends. The texts only join plain words; none describes anything."""

import pytest

from training.hard_rules import joins_minor_and_sexual


@pytest.mark.parametrize(
    ("categories", "texts"),
    [
        (["sexual"], ["a child"]),
        (["Sexual"], ["Children"]),
        (["nudity"], ["two teenagers"]),
        (["hate", "sexual"], ["a girl"]),
        (["shocking"], ["nude", "a boy"]),  # the two words in different texts
        (["violence"], ["a naked teen"]),
        (["sexual"], ["a 15-year-old"]),
        (["sexual"], ["a 9 year old"]),
        (["sexual"], ["aged 12"]),
        (["sexual"], ["16yo"]),
        (["sexual"], ["seventeen years old"]),
        (["sexual"], ["under-aged"]),
        (["sexual"], ["high school"]),
        (["sexual"], ["schoolgirls"]),
        (["hate"], ["nude_child.png"]),  # underscores of file names
        (["hate"], ["ＮＵＤＥ ｃｈｉｌｄ"]),  # full-width letters
        (["hate"], ["nudé chíld"]),
        (["hate"], ["nu\u200bde ki\u200bd"]),  # zero-width spaces
    ],
)
def test_a_sexual_row_with_a_word_for_a_minor_is_dropped(categories, texts):
    assert joins_minor_and_sexual(categories, *texts)


@pytest.mark.parametrize(
    ("categories", "texts"),
    [
        (["sexual"], ["a woman on a sofa"]),
        (["sexual"], ["a 35-year-old man", "aged 40"]),
        (["sexual"], ["a 117 year old oak"]),
        (["hate"], ["a child with a balloon"]),
        (["violence"], ["a boy", "a girl"]),
        (["shocking"], ["a child in Middlesex with a sextant"]),
        (["sexual"], ["a minority", "infantry", "kidney beans", "a cowboy", "a babysitter", "a girlfriend"]),
        (["self-harm"], []),
        ([], []),
    ],
)
def test_other_rows_are_kept(categories, texts):
    assert not joins_minor_and_sexual(categories, *texts)


def test_the_order_of_the_texts_does_not_matter():
    assert joins_minor_and_sexual([], "a kid", "erotic")
    assert joins_minor_and_sexual([], "erotic", "a kid")
