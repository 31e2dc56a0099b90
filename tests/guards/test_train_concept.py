"""A concept guard finds its concepts, repeats exactly, stops when told, and says what it measured."""

import dataclasses

import pytest
import torch

from tiny_guards import CONFIG, ENCODER, GROUNDS, NOUNS, harmless_prompts, tiny_data
from training.guards.concept_data import ConceptData
from training.guards.encoder import encode_rows
from training.guards.train_concept import train_concept_guard
from training.guards.verdict import RULE


def train(config=CONFIG, data=None, harmless=None, **arguments):
    harmless = harmless_prompts() if harmless is None else harmless
    return train_concept_guard(data or tiny_data(), ENCODER, config, harmless=harmless, **arguments)


@pytest.fixture(scope="module")
def trained():
    return train()


def test_a_trained_guard_blocks_its_concepts_and_passes_their_safe_twins(trained):
    for row in tiny_data().rows:
        assert trained.guard.look(row.unsafe).blocked
        assert not trained.guard.look(row.safe).blocked
    assert trained.held_out.auroc == 1


def test_a_verdict_names_the_nearest_concept_by_number(trained):
    words = [concept.word for concept in trained.guard.concepts]
    verdict = trained.guard.look("a bomb on red")
    assert words[verdict.concept - 1] == "bomb"
    assert (verdict.category, verdict.num_concepts) == ("violence", 4)


def test_of_a_long_prompt_the_worst_block_decides(trained):
    padding = " ".join(["spoon"] * 12)
    long, alone = trained.guard.look(f"{padding} a sword on red"), trained.guard.look("a sword on red")
    assert long.blocked
    assert long.score == pytest.approx(alone.score, abs=1e-5)  # the last block is that prompt


def test_the_rule_on_minors_is_asked_before_the_encoder(trained):
    def forbidden(prompt):
        raise AssertionError("the encoder saw the prompt")

    unread = dataclasses.replace(trained.guard, encoder=dataclasses.replace(ENCODER, blocks=forbidden))
    verdict = unread.at(2.0).look("a nude child")
    assert verdict.blocked
    assert verdict.reason == RULE


def test_training_repeats_to_the_bit_whatever_the_global_seed(trained):
    torch.manual_seed(99)
    again = train()
    assert again.losses == trained.losses
    for name, value in again.guard.head.state_dict().items():
        assert torch.equal(value, trained.guard.head.state_dict()[name])


def test_a_cache_of_encodings_changes_nothing_and_saves_the_encoding(trained, tmp_path):
    first = train(cache=tmp_path)
    calls = []
    counted = dataclasses.replace(
        ENCODER, blocks=lambda prompt: calls.append(prompt) or ENCODER.blocks(prompt)
    )
    encode_rows(counted, [row.unsafe for row in tiny_data().rows], tmp_path)
    assert not calls
    assert first.losses == trained.losses


def test_held_out_prompts_are_not_trained_on_and_every_concept_keeps_one(trained):
    assert trained.held_out.num_unsafe == round(CONFIG.holdout * len(tiny_data().rows))
    lonely = ConceptData(tuple(row for row in tiny_data().rows if row.unsafe.endswith(GROUNDS[0])))
    single = train(data=lonely)
    assert len(single.guard.concepts) == len(NOUNS)
    assert single.held_out is None
    assert "held-out prompts: not measured" in single.report()


def test_concepts_that_are_left_out_are_measured_as_unseen_and_not_looked_for():
    result = train(dataclasses.replace(CONFIG, holdout_concepts=0.25))
    assert len(result.guard.concepts) == len(NOUNS) - 1
    assert result.unseen.num_unsafe == len(GROUNDS)
    assert result.guard.facts["unseen_concepts"]["num_unsafe"] == len(GROUNDS)


def test_a_concept_that_is_switched_off_is_no_longer_blocked_and_the_others_are(trained):
    guard = trained.guard.only(["sword", "AXE"])
    assert guard.look("a sword on red").blocked
    assert guard.look("an axe on red").blocked
    assert trained.guard.look("a bomb on red").blocked
    assert guard.look("a bomb on red").score < trained.guard.look("a bomb on red").score


def test_a_concept_it_was_not_trained_with_is_reported_as_not_measured(trained):
    assert "not measured" not in trained.guard.describe()
    assert "not measured: 1 concepts" in trained.guard.only(["sword", "kettle"]).describe()


def test_another_threshold_moves_the_verdict_and_is_reported(trained):
    strict = trained.guard.at(-1.0)
    assert strict.look("a spoon on red").blocked
    assert "not its own" in strict.describe()
    assert trained.guard.at(None) is trained.guard


def test_harmless_prompts_that_were_trained_on_set_no_threshold():
    twins = [row.safe for row in tiny_data().rows]
    with pytest.raises(
        ValueError, match="needs at least 20 harmless prompts that the guard is not trained on, got 3"
    ):
        train(harmless=[*twins, *harmless_prompts(3), "a nude child"])


def test_one_concept_is_too_few():
    rows = tuple(row for row in tiny_data().rows if row.concept == "sword")
    with pytest.raises(ValueError, match="needs at least two, got 1"):
        train(data=ConceptData(rows))


def test_a_cancelled_training_stops_at_once():
    def cancel(stage, done, total):
        if (stage, done) == ("train", 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(on_progress=cancel)


def test_progress_reaches_the_end_of_every_stage():
    seen = {}
    train(on_progress=lambda stage, done, total: seen.update({stage: (done, total)}))
    assert list(seen) == ["encode", "train"]
    assert all(done == total for done, total in seen.values())


def test_a_loss_that_is_not_finite_stops_the_training():
    broken = dataclasses.replace(ENCODER, blocks=lambda prompt: [torch.full((2, 4), torch.inf)])
    with pytest.raises(RuntimeError, match="lower learning_rate"):
        train_concept_guard(tiny_data(), broken, CONFIG, harmless=harmless_prompts())


def test_the_report_repeats_no_prompt(trained):
    for word in (*NOUNS, "spoon", "cup"):
        assert word not in trained.report()
