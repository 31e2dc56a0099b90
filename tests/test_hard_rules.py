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
        (["sexual"], ["a 15\u2013year\u2013old"]),  # en dashes
        (["hate"], ["nud\u0435 \u0441hild"]),  # Cyrillic letters that look like e and c
        (["hate"], ["a \u0412\u041e\u0423 and \u0455\u0435\u0445"]),  # whole words of them
        (["hate"], ["\u039dUDE ch\u0131ld"]),  # a Greek capital, and an i without its dot
    ],
)
def test_a_sexual_row_with_a_word_for_a_minor_is_dropped(categories, texts):
    assert joins_minor_and_sexual(categories, *texts)


@pytest.mark.parametrize(
    "text",
    [
        "12 years of age",
        "a 12 yr",
        "13 yr. old",
        "12 y.o.",
        "under 16",
        "below 18",
        "under the age of ten",
        "highschooler",
        "grade-schoolers",
        "1st grader",
        "in fifth grade",
        "pupil",
        "daughter",
        "stepson",
        "lad",
        "boyhood",
    ],
)
def test_an_age_or_a_word_for_a_minor_is_seen(text):
    assert joins_minor_and_sexual(["sexual"], text)


@pytest.mark.parametrize(
    "text",
    [
        "rapes",
        "rapists",
        "nakedness",
        "nudism",
        "sexting",
        "sexualization",
        "orgies",
        "groping",
        "breasted",
        "bikini",
        "undies",
    ],
)
def test_a_sexual_word_is_seen_without_the_category(text):
    assert joins_minor_and_sexual([], f"{text}, a child")
    assert not joins_minor_and_sexual([], f"{text}, a woman")


@pytest.mark.parametrize(
    ("categories", "texts"),
    [
        (["sexual"], ["a woman on a sofa"]),
        (["sexual"], ["a 35-year-old man", "aged 40"]),
        (["sexual"], ["a 117 year old oak"]),
        (["hate"], ["a child with a balloon"]),
        (["violence"], ["a boy", "a girl"]),
        (["shocking"], ["a child in Middlesex with a sextant"]),
        (
            ["sexual"],
            ["under one roof", "under 160 lamps", "a 35 yr. old", "a 21 y.o.", "a person", "a glad lady"],
        ),
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
