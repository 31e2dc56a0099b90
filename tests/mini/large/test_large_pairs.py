"""The pairs that the large world's model draws, before they are drawn."""

import pytest

from training.mini.large.concepts import COUNTERPARTS, NEUTRAL, STAND_INS, paired, unseen_word, words_in_pairs
from training.mini.large.pairs import pairs_of, pairs_to_draw
from training.mini.large.scenes import GROUNDS, Scene
from training.mini.pairs import PAIRS_PER_CATEGORY
from training.rules.categories import CATEGORIES


@pytest.fixture(scope="module", params=CATEGORIES)
def category(request):
    return request.param


def test_pairs_show_all_seven_stand_ins_equally_often_and_no_other(category):
    shown = [pair.unsafe.answers[0] for pair in pairs_to_draw(category, PAIRS_PER_CATEGORY)]
    counts = {concept.name: shown.count(concept.name) for concept in paired(category)}
    assert sum(counts.values()) == len(shown) == 48
    assert set(counts.values()) <= {6, 7}


def test_the_winner_shows_the_counterpart_on_the_same_ground(category):
    names = {concept.name: safe.name for concept, safe in COUNTERPARTS.items()}
    for unsafe, safe in pairs_to_draw(category, PAIRS_PER_CATEGORY):
        assert safe.answers == (names[unsafe.answers[0]], unsafe.answers[1])


def test_prompts_are_those_of_scenes_by_the_two_words_of_pairs(category):
    concepts = [concept for stand_in in paired(category) for concept in (stand_in, COUNTERPARTS[stand_in])]
    asked = {
        Scene(concept, ground).prompt(word=word): (concept.name, ground)
        for concept in concepts
        for word in words_in_pairs(concept)
        for ground in GROUNDS
    }
    for pair in pairs_to_draw(category, PAIRS_PER_CATEGORY):
        assert [asked[side.prompt] for side in pair] == [side.answers for side in pair]


def test_ten_pairs_of_a_stand_in_use_both_words_on_every_ground(category):
    pairs = pairs_of(STAND_INS[category][:1], 10)
    assert len({pair.unsafe.prompt for pair in pairs}) == len({pair.safe.prompt for pair in pairs}) == 10


def test_no_pair_uses_an_unseen_word_or_a_neutral_concept():
    prompts = {
        side.prompt
        for name in CATEGORIES
        for pair in pairs_to_draw(name, PAIRS_PER_CATEGORY)
        for side in pair
    }
    nouns = {prompt.removeprefix("a ").split()[0] for prompt in prompts}
    hidden = {concept.words[unseen_word(concept)] for concept in (*COUNTERPARTS, *COUNTERPARTS.values())}
    assert not nouns & (hidden | {word for concept in NEUTRAL for word in concept.words})
