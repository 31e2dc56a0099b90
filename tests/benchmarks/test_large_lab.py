"""The lab of the large world: what it keeps names no concept, and pictures are counted by column."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

import large_lab
from candidates import Candidate
from large_groups import IP, NEVER, SAFETY, concept_groups, never_kept
from large_lab import PAIRS_PER_CONCEPT, LargeLab, names_no_concept, shares, tally, wanted
from training.mini.large.concepts import ALL_CONCEPTS, never_paired, paired
from training.models.tokenizer import NUM_TOKENS
from training.rules.categories import CATEGORIES
from training.trainer.kept import NUM_MEASURED, everyday_of


def test_everyday_prompts_hold_no_word_of_any_concept_and_most_are_left():
    wanted_by_default = everyday_of(LargeLab.recipe)
    kept, measured = LargeLab.everyday(None, *map(len, wanted_by_default))
    assert len(kept) > 0.8 * len(wanted_by_default.kept)
    assert len(measured) == NUM_MEASURED
    assert not set(kept) & set(measured)
    words = {word for concept in ALL_CONCEPTS for word in concept.words}
    assert not words & {word for prompt in kept + measured for word in prompt.lower().split()}


@pytest.mark.parametrize(
    ("prompt", "strict"),
    [("a lighthouse at dusk", True), ("An axe, oil painting", False), ("two hammers", False), ("axel", True)],
)
def test_a_prompt_names_a_concept_by_any_of_its_words_also_in_the_plural(prompt, strict):
    assert names_no_concept(prompt) == strict


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_category_has_ten_pairs_of_each_concept_in_pairs_and_a_stand_in_ten_of_its_own(category):
    in_pairs, (other, *_) = paired(category), never_paired(category)
    shown = [pair.unsafe.answers[0] for pair in wanted(category)]
    assert {name: shown.count(name) for name in shown} == {one.name: PAIRS_PER_CONCEPT for one in in_pairs}
    assert {pair.unsafe.answers[0] for pair in wanted(other.name)} == {other.name}
    assert len(set(wanted(other.name))) == PAIRS_PER_CONCEPT


def test_the_unsafe_text_has_one_word_of_each_concept_in_pairs_and_is_read_whole():
    words = LargeLab.unsafe_text.split()
    assert len(words) == 7 * len(CATEGORIES) <= NUM_TOKENS - 2  # a token each
    in_pairs = [concept for name in CATEGORIES for concept in paired(name)]
    assert all(word in concept.words for word, concept in zip(words, in_pairs, strict=True))


def test_pictures_of_a_category_add_up_in_their_column():
    first, second = concept_groups("hate", paired("hate")[:1])
    counts = tally([(first, [True, False]), (second, [True]), (first, [True])])
    assert counts == {first.column: {"hate": [2, 3]}, second.column: {"hate": [1, 1]}}


def test_a_share_is_over_all_categories_and_only_what_is_kept_is_relative_to_the_base():
    counts = {IP: {"hate": [1, 4], "sexual": [0, 4]}, NEVER: {"": [6, 10]}}
    assert shares(counts) == {IP: 0.125, NEVER: 0.6}
    base = {IP: {"hate": [4, 4], "sexual": [4, 4]}, NEVER: {"": [8, 10]}}
    assert shares(counts, base) == {IP: 0.125, NEVER: pytest.approx(0.75)}


@pytest.fixture
def lab(monkeypatch):
    """A lab that draws the names of what its weight says, and notes the seeds."""
    lab = SimpleNamespace(unet=torch.nn.Linear(1, 1), seed_offset=20_000, seeds=[], contexts=[])
    lab.judge = SimpleNamespace(answers=lambda pictures: pictures)
    monkeypatch.setattr(large_lab, "texts", lambda lab, prompts: torch.zeros(len(prompts), 1))

    def drawn(lab, embeds, seeds, guidance, safe):
        lab.seeds.append(list(seeds))
        name = paired("hate")[0].name if lab.unet.weight.item() == 1 else "none"
        lab.contexts.append(safe)
        return [(name, "white")] * len(embeds)

    monkeypatch.setattr(large_lab, "drawn", drawn)
    monkeypatch.setattr(large_lab, "kept_text", lambda _: nullcontext())
    torch.nn.init.ones_(lab.unet.weight)
    return lab


def test_unsafe_prompts_are_drawn_by_their_own_expert_and_others_by_each_in_turn(lab):
    (group, _), kept = concept_groups("hate", paired("hate")[:1]), never_kept()
    single = Candidate({name: {"weight": -torch.ones(1, 1)} for name in ("sexual", "hate")})
    assert large_lab.count(lab, Candidate({}), group) == [True] * 4
    assert large_lab.count(lab, single, group) == [False] * 4
    assert len(large_lab.count(lab, single, kept)) == 2 * len(kept.asked)
    assert lab.unet.weight.item() == 1


def test_a_safe_context_is_made_for_each_prompt_and_each_user(lab):
    (group, _), kept = concept_groups("hate", paired("hate")[:1]), never_kept()

    def context(user, prompts, embeds):
        return user, len(prompts), len(embeds)

    candidate = Candidate({"sexual": {}, "hate": {}}, guidance="config", context=context)
    large_lab.count(lab, candidate, group)
    large_lab.count(lab, candidate, kept)
    assert lab.contexts == [("hate", 4, 4), ("sexual", 35, 35), ("hate", 35, 35)]


def test_the_seeds_of_a_group_depend_on_the_offset_alone(lab):
    group, _ = concept_groups("hate", paired("hate")[:1])
    large_lab.count(lab, Candidate({}), group)
    large_lab.count(lab, Candidate({}), group, push=lambda embeds: embeds + 1)
    assert lab.seeds == [[21_000, 21_001, 21_002, 21_003]] * 2


def test_the_counts_of_a_candidate_are_by_column_and_category(lab):
    groups = [*concept_groups("hate", paired("hate")[:1]), never_kept()]
    counts = large_lab.counts_of(lab, Candidate({}), groups)
    assert {column: counts[column] for column in SAFETY[:2]} == {
        IP: {"hate": [4, 4]},
        SAFETY[1]: {"hate": [2, 2]},
    }
    assert counts[NEVER] == {"": [0, 35]}
