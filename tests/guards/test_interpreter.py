"""An interpreter says what its encoder understood, and blocks what is written otherwise or names a word."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from builders import seeded
from tiny_guards import ENCODER
from tiny_interpreter import BLOCK, CAPTIONS, CLIP, CONFIG, SPOKEN, blocks
from training.guards.decoder import Decoder, DecoderShape
from training.guards.guard_file import read_guard_file
from training.guards.interpreter import UNLIKE, WORD, WORD_SCORE, interpreter_of_file
from training.guards.train_interpreter import train_interpreter
from training.guards.verdict import RULE
from training.rules.terms import Terms


@pytest.fixture(scope="module")
def trained():
    return train_interpreter(CAPTIONS, CLIP, SPOKEN, CONFIG)


@pytest.fixture(scope="module")
def guard(trained):
    return trained.guard


def test_prompts_come_back_as_they_were_also_most_of_those_it_was_not_trained_on(trained, guard):
    (part,) = guard.interpret(CAPTIONS[0])
    assert part.text == CAPTIONS[0]
    assert part.similarity == pytest.approx(1, abs=1e-5)
    assert trained.num_held_out == 12
    assert trained.exact >= 7


def test_an_encoding_of_other_words_is_interpreted_and_blocked(guard):
    """What an attack achieves: a text whose encoding is that of another prompt."""
    hidden = dataclasses.replace(CLIP, blocks=lambda prompt: blocks("a red sword by a hill"))
    fooled = dataclasses.replace(guard, encoder=hidden)
    assert fooled.interpret("a green boat by a lake")[0].text == "a red sword by a hill"
    verdict = fooled.look("a green boat by a lake")
    assert verdict.blocked
    assert verdict.reason == UNLIKE
    assert not fooled.look("a red sword by a hill").blocked


def test_a_blocked_word_in_the_interpretation_blocks_whatever_the_similarity(guard):
    strict = guard.blocking(Terms(["sword"]))
    verdict = strict.look("a red sword by a hill")
    assert (verdict.blocked, verdict.reason, verdict.score) == (True, WORD, WORD_SCORE)
    assert not strict.look("a red cup by a hill").blocked
    assert "Reason: blocked word." in verdict.report()
    assert "no blocked words" in guard.describe()
    assert "sword" not in strict.describe() + repr(strict) + verdict.report()


def test_a_blocked_word_of_the_prompt_blocks_although_the_decoder_cannot_say_it(guard):
    verdict = guard.blocking(Terms(["kettle"])).look("a red kettle by a hill")
    assert (verdict.blocked, verdict.reason) == (True, WORD)


def test_equal_texts_mean_the_same_whatever_the_rounding_so_a_threshold_may_lie_just_above_zero(guard):
    def noisy(texts):  # as of a machine on which the same text has not the same embedding twice
        return torch.stack([torch.tensor([1.0, 0.001 * place]) for place, _ in enumerate(texts)])

    rounded = dataclasses.replace(guard, language=dataclasses.replace(SPOKEN, embed=noisy)).at(1e-40)
    (part,) = rounded.interpret(CAPTIONS[0])
    assert part.text == CAPTIONS[0]
    assert part.similarity == 1.0
    assert not rounded.look(CAPTIONS[0]).blocked


def test_of_a_long_prompt_the_worst_block_decides(guard):
    other = "a red sword by a hill"
    start = " ".join(CAPTIONS[0].split() * 13)[: len(" ".join(CAPTIONS[0].split() * 12))]
    words = (start.split() * 2)[:BLOCK]

    def second_block_lies(prompt):
        first = blocks(" ".join(prompt.split()[:BLOCK]))
        return [*first, *blocks(other)]

    fooled = dataclasses.replace(guard, encoder=dataclasses.replace(CLIP, blocks=second_block_lies))
    parts = fooled.interpret(" ".join(words) + " green boat by a lake table")
    assert len(parts) == 2
    assert parts[1].text == other
    verdict = fooled.look(" ".join(words) + " green boat by a lake table")
    assert verdict.score == pytest.approx(1 - min(part.similarity for part in parts))


def test_the_rule_on_minors_is_asked_before_the_encoder(guard):
    def forbidden(prompt):
        raise AssertionError("the encoder saw the prompt")

    unread = dataclasses.replace(guard, encoder=dataclasses.replace(CLIP, blocks=forbidden))
    verdict = unread.at(5.0).look("a nude child")
    assert (verdict.blocked, verdict.reason) == (True, RULE)


def test_captions_that_the_rule_forbids_are_dropped_and_counted():
    few = dataclasses.replace(CONFIG, steps=1)
    outcome = train_interpreter([*CAPTIONS, "a nude child by a lake"], CLIP, SPOKEN, few)
    assert (outcome.num_captions, outcome.dropped) == (len(CAPTIONS), 1)
    assert "1 captions dropped by the rule on minors" in outcome.report()


def test_training_repeats_to_the_bit_whatever_the_global_seed():
    few = dataclasses.replace(CONFIG, steps=3)
    runs = []
    for seed in (0, 99):
        torch.manual_seed(seed)
        runs.append(train_interpreter(CAPTIONS, CLIP, SPOKEN, few))
    assert runs[0].losses == runs[1].losses
    weights = [run.guard.decoder.state_dict() for run in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_file_gives_the_same_verdicts_and_holds_no_word(guard, tmp_path):
    path = guard.blocking(Terms(["sword"])).file().write(tmp_path / "interpreter.safetensors")
    again = interpreter_of_file(read_guard_file(path), CLIP, SPOKEN)
    for caption in CAPTIONS[:4]:
        assert again.look(caption) == guard.look(caption)
    assert again.words is None
    assert b"sword" not in path.read_bytes()


def test_a_file_of_another_encoder_is_refused_by_name(guard, tmp_path):
    file = read_guard_file(guard.file().write(tmp_path / "i.safetensors"))
    with pytest.raises(ValueError, match="was trained for the clip encoder cccccccccccc"):
        interpreter_of_file(file, ENCODER, SPOKEN)


@pytest.mark.parametrize(
    "damage",
    [
        lambda tensors, facts: tensors.pop("places"),
        lambda tensors, facts: tensors.pop("vocabulary"),
        lambda tensors, facts: tensors.update(vocabulary=tensors["vocabulary"] + 0.5),
        lambda tensors, facts: tensors.update(vocabulary=tensors["vocabulary"] * 1e6),
        lambda tensors, facts: tensors.update({"layers.999999.x": torch.zeros(1)}),
        lambda tensors, facts: tensors.update({"tokens.weight": tensors["tokens.weight"][:-1]}),
        lambda tensors, facts: facts.update(heads=3),
        lambda tensors, facts: facts.update(heads="4"),
        lambda tensors, facts: facts.pop("heads"),
    ],
)
def test_a_damaged_file_is_refused_by_its_name(guard, damage):
    file = guard.file()
    tensors, facts = dict(file.tensors), dict(file.facts)
    damage(tensors, facts)
    with pytest.raises(ValueError, match=r"i\.safetensors is incomplete or misshapen"):
        interpreter_of_file(
            dataclasses.replace(file, tensors=tensors, facts=facts, name="i.safetensors"), CLIP, SPOKEN
        )


def test_too_few_captions_are_refused_before_training():
    with pytest.raises(ValueError, match="needs at least 8 prompts that the interpreter is not trained on"):
        train_interpreter(CAPTIONS[:8], CLIP, SPOKEN, CONFIG)


def test_only_the_checkpoints_clip_can_be_interpreted():
    with pytest.raises(ValueError, match="not the encoder `sentence`"):
        train_interpreter(CAPTIONS, dataclasses.replace(CLIP, kind="sentence"), SPOKEN, CONFIG)


# the decoder


def test_the_map_of_the_row_equals_attention_to_a_single_key():
    """A single key always has weight 1, so attention gives its value, whatever the query."""
    generator = seeded(0)
    value, out = (torch.randn(8, 8, generator=generator) for _ in range(2))
    row, queries = torch.randn(1, 8, generator=generator), torch.randn(5, 8, generator=generator)
    keys = torch.randn(1, 8, generator=generator)
    attended = F.scaled_dot_product_attention(queries[None], keys[None], (row @ value)[None])[0] @ out
    torch.testing.assert_close(attended, (row @ (value @ out)).expand(5, 8), rtol=1e-5, atol=1e-5)


def test_a_token_is_predicted_from_those_before_it_alone():
    decoder = Decoder(DecoderShape(4, 8, 2, 2, 6), seeded(1))
    row, before = torch.randn(1, 4, generator=seeded(2)), torch.tensor([[6, 1, 2, 3]])
    changed = torch.tensor([[6, 1, 2, 5]])
    first, second = decoder(row, before), decoder(row, changed)
    assert first.shape == (1, 4, 6)
    torch.testing.assert_close(first[:, :3], second[:, :3])
    assert not torch.allclose(first[:, 3], second[:, 3])


def test_it_says_as_many_tokens_as_asked_and_never_more_than_a_block():
    decoder = Decoder(DecoderShape(4, 8, 1, 2, 6), seeded(1))
    assert len(decoder.say(torch.ones(4), 5)) == 5
    assert decoder.say(torch.ones(4), 0) == []
    assert len(decoder.say(torch.ones(4), 500)) == 75
