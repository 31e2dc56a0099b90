"""The prompts of the large world: what is measured as never seen is in no pair."""

import pytest

from large_groups import (
    IP,
    KEPT_COLUMNS,
    NEUTRAL,
    NEVER,
    SAFE,
    SAFETY,
    UNSEEN_CONCEPTS,
    UNSEEN_WORDS,
    concept_groups,
    counterparts,
    groups_of,
    never_kept,
)
from large_lab import LargeLab, wanted
from training.mini.large.concepts import COUNTERPARTS, KEPT, NEVER_KEPT, STAND_INS, never_paired, paired
from training.mini.large.scenes import GROUNDS
from training.rules.categories import CATEGORIES

GROUPS = groups_of(CATEGORIES)
IN_PAIRS = {side.prompt for name in CATEGORIES for pair in wanted(name) for side in pair}


def groups(*columns):
    return [group for group in GROUPS if group.column in columns]


def names(group):
    return {asked.answers[0] for asked in group.asked}


def test_every_category_has_every_column_of_ip_and_the_rest_is_to_be_kept():
    assert {(group.column, group.category) for group in GROUPS if group.category} == {
        (column, category) for column in SAFETY for category in CATEGORIES
    }
    assert [group.column for group in GROUPS if not group.category] == list(KEPT_COLUMNS)


def test_no_prompt_is_asked_twice_and_all_grounds_are_asked_for():
    for group in GROUPS:
        assert len(set(group.prompts)) == len(group.prompts)
        assert {asked.answers[1] for asked in group.asked} == set(GROUNDS)


def test_half_of_the_prompts_by_words_in_pairs_are_in_pairs():
    for group in groups(IP):
        assert sum(prompt in IN_PAIRS for prompt in group.prompts) == len(group.prompts) / 2


def test_no_other_prompt_is_in_pairs():
    others = groups(UNSEEN_WORDS, UNSEEN_CONCEPTS, *KEPT_COLUMNS)
    assert not IN_PAIRS & {prompt for group in others for prompt in group.prompts}


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_concepts_are_those_that_the_columns_name(category):
    by_column = {group.column: group for group in GROUPS if group.category == category}
    in_pairs = {concept.name for concept in paired(category)}
    assert names(by_column[IP]) == names(by_column[UNSEEN_WORDS]) == in_pairs
    assert names(by_column[UNSEEN_CONCEPTS]) == {concept.name for concept in never_paired(category)}


def test_what_is_kept_are_all_counterparts_and_all_neutral_concepts():
    by_column = {group.column: names(group) for group in groups(*KEPT_COLUMNS)}
    assert by_column == {
        SAFE: {concept.name for concept in COUNTERPARTS.values()},
        NEUTRAL: {concept.name for concept in KEPT},
        NEVER: {concept.name for concept in NEVER_KEPT},
    }


def test_an_unsafe_picture_shows_any_stand_in_of_the_category_on_any_ground():
    group, _ = concept_groups("hate", paired("hate")[:1])
    shown = [(concept.name, "white") for concept in STAND_INS["hate"]]
    other = [(STAND_INS["violence"][0].name, "white"), (group.asked[0].answers[0], "purple")]
    assert group.counted([*shown, *other, ("none", "white")]) == [True] * 10 + [False, True, False]


def test_a_kept_picture_shows_the_concept_on_the_ground_that_was_asked_for():
    group = never_kept()
    answers = [asked.answers for asked in group.asked]
    assert all(group.counted(answers))
    answers[0], answers[1] = (answers[0][0], "other"), ("none", answers[1][1])
    assert group.counted(answers)[:3] == [False, False, True]


def test_one_category_is_measured_on_its_own_counterparts():
    (safe,) = (group for group in groups_of(("hate",)) if group.column == SAFE)
    assert names(safe) == {COUNTERPARTS[concept].name for concept in STAND_INS["hate"]}


def test_the_lab_embeds_every_prompt_that_is_drawn_or_in_a_pair():
    embedded = set(LargeLab.prompts(None))
    every = [*GROUPS, counterparts(COUNTERPARTS, (0,)), never_kept()]
    assert IN_PAIRS | {prompt for group in every for prompt in group.prompts} <= embedded
    for category in CATEGORIES:
        for concept in STAND_INS[category]:
            alone = [side.prompt for pair in wanted(concept.name) for side in pair]
            asked = [prompt for group in concept_groups(category, (concept,)) for prompt in group.prompts]
            assert {*alone, *asked} <= embedded
