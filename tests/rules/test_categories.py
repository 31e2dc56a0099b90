"""Categories are normalised to one spelling."""

import pytest

from training.rules.categories import CATEGORIES, normalize_categories, normalize_category

SPELLINGS = {
    "Hate": "hate",
    "HATE": "hate",
    "Harrasment": "harassment",  # CoProV2
    "Harassment": "harassment",
    "harrassment": "harassment",
    "Violence": "violence",
    "sexual": "sexual",
    " Sexual ": "sexual",
    "Shocking": "shocking",
    "self-harm": "self-harm",
    "Self-harm": "self-harm",
    "self_harm": "self-harm",
    "SELF HARM": "self-harm",
    "selfharm": "self-harm",
    "self\u2010harm": "self-harm",  # typographic hyphen
    "illegal": "illegal activity",
    "Illegal Activity": "illegal activity",
    "illegal_activity": "illegal activity",
    "illegal-activity": "illegal activity",
    "illegal  activity": "illegal activity",
}


@pytest.mark.parametrize(("spelling", "category"), SPELLINGS.items())
def test_accepted_spellings_become_the_papers_names(spelling, category):
    assert normalize_category(spelling) == category


@pytest.mark.parametrize("name", [*CATEGORIES, "my own_Thing", "nudity", "Weapons-2"])
def test_normalising_twice_changes_nothing(name):
    once = normalize_category(name)
    assert normalize_category(once) == once


def test_the_spellings_cover_all_seven_categories():
    assert set(SPELLINGS.values()) == set(CATEGORIES)
    assert len(CATEGORIES) == 7


@pytest.mark.parametrize("name", ["", "  ", "_-_"])
def test_a_blank_category_is_refused(name):
    with pytest.raises(ValueError, match="needs a name"):
        normalize_category(name)


def test_a_comma_inside_one_category_is_refused():
    with pytest.raises(ValueError, match="must not contain a comma"):
        normalize_category("hate, violence")


def test_categories_are_unique_and_in_one_order():
    expected = ("hate", "self-harm", "a thing", "zebra")
    assert normalize_categories(["zebra", "Self_Harm", "hate", "HATE", "A-thing"]) == expected
    assert normalize_categories("a thing, hate, , self harm,zebra,") == expected


def test_no_names_give_no_categories():
    assert normalize_categories("") == normalize_categories([]) == ()
