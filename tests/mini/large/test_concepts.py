"""The concepts of the large world: how many, by which words, and what training may see of them."""

import hashlib
from collections import Counter

from training.mini.large.concepts import (
    ALL_CONCEPTS,
    COUNTERPARTS,
    KEPT,
    NEUTRAL,
    NEVER_KEPT,
    STAND_INS,
    never_paired,
    paired,
    unseen_word,
    words_in_pairs,
)
from training.mini.large.scenes import ALL_SCENES, GROUNDS, TEMPLATES, Scene
from training.models.tokenizer import load_tokenizer, token_ids
from training.rules.categories import CATEGORIES
from training.rules.hard_rule import joins_minor_and_sexual

WORDS = [word for concept in ALL_CONCEPTS for word in concept.words]


def test_every_category_has_ten_stand_ins_with_a_safe_counterpart_each():
    assert tuple(STAND_INS) == CATEGORIES
    assert {len(concepts) for concepts in STAND_INS.values()} == {10}
    assert [concept for concepts in STAND_INS.values() for concept in concepts] == list(COUNTERPARTS)
    assert len(set(COUNTERPARTS.values())) == 70


def test_there_are_seventy_neutral_concepts_and_no_concept_has_two_roles():
    assert len(NEUTRAL) >= 70
    assert len(ALL_CONCEPTS) >= 210
    assert len({concept.emoji for concept in ALL_CONCEPTS}) == len(ALL_CONCEPTS)
    assert {len(concept.emoji) for concept in ALL_CONCEPTS} == {1}


def test_a_word_belongs_to_one_concept_and_is_one_token():
    assert {len(concept.words) for concept in ALL_CONCEPTS} == {3}
    assert [word for word, count in Counter(WORDS).items() if count > 1] == []
    vocabulary = load_tokenizer().get_vocab()
    assert [word for word in WORDS if f"{word}</w>" not in vocabulary] == []
    end = vocabulary["<|endoftext|>"]
    ids = token_ids([f"a {word}" for word in WORDS], load_tokenizer())  # (words, 77)
    assert bool((ids[:, 3] == end).all())  # begin, a, word, end
    assert len(set(ids[:, 2].tolist())) == len(WORDS)


def test_seven_stand_ins_of_ten_are_in_pairs_and_the_other_three_never():
    for category in CATEGORIES:
        assert (len(paired(category)), len(never_paired(category))) == (7, 3)
        assert {*paired(category), *never_paired(category)} == set(STAND_INS[category])


def test_two_words_of_three_are_in_pairs_and_the_third_never():
    for concept in ALL_CONCEPTS:
        assert sorted((*words_in_pairs(concept), unseen_word(concept))) == [0, 1, 2]


def test_half_of_the_neutral_concepts_may_be_kept_and_the_other_half_never():
    assert abs(len(KEPT) - len(NEVER_KEPT)) <= 1
    assert sorted((*KEPT, *NEVER_KEPT), key=NEUTRAL.index) == list(NEUTRAL)


def test_what_training_may_see_never_changes():
    seen = [concept.name for category in CATEGORIES for concept in paired(category)]
    seen += [concept.words[number] for concept in ALL_CONCEPTS for number in words_in_pairs(concept)]
    seen += [concept.name for concept in KEPT]
    # changing a choice makes every figure that was measured incomparable with the new ones
    assert hashlib.sha256(" ".join(seen).encode()).hexdigest()[:16] == "40a7eeb11410998d"
    assert [concept.name for concept in never_paired("shocking")] == ["ghost", "pumpkin", "genie"]


def test_every_prompt_is_different():
    prompts = [
        scene.prompt(word=word, template=template)
        for scene in ALL_SCENES
        for word in range(3)
        for template in range(len(TEMPLATES))
    ]
    assert len(set(prompts)) == len(prompts) == 210 * len(GROUNDS) * 3 * len(TEMPLATES)


def test_no_pair_of_words_would_be_dropped_by_the_rule_on_minors():
    for category, concepts in STAND_INS.items():
        for stand_in in concepts:
            words = (*stand_in.words, *COUNTERPARTS[stand_in].words)
            assert not joins_minor_and_sexual((category,), *words), words


def test_a_prompt_names_concept_and_ground():
    skull = STAND_INS["shocking"][0]
    scene = Scene(skull, "blue")
    assert scene.prompt() == "a skull on a blue ground"
    assert scene.prompt(word=2, template=1) == "dead, blue ground"
    assert scene.answers == ("skull", "blue")
