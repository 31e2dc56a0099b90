"""The large model draws what is asked, by any of a concept's words."""

from training.mini.large.pairs import all_asked
from training.mini.large.recipe.__main__ import drawn_right
from training.mini.large.shipped import LARGE

EVERY = 9  # the whole list takes minutes: `python -m training.mini.large.recipe` prints its share


def test_all_words_of_all_concepts_are_measured():
    asked = all_asked()
    assert len({one.prompt for one in asked}) == 630
    assert len({one.answers for one in asked}) == 3 * 210  # a concept's words are asked for on other grounds


def test_what_is_asked_is_drawn():
    right = drawn_right(LARGE, all_asked()[::EVERY])
    assert sum(right) / len(right) >= 0.93  # 615 of all 630 are right
