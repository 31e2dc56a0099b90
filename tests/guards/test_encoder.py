"""What guards read of a prompt: the rows of the real encoders, in blocks, whatever stands around the text."""

import pytest
import torch

from training.evaluation.measures.sentences import MODULE
from training.guards.encoder import clip_encoder, encode_rows, padded, sentence_encoder, weights_id
from training.mini.text_encoder import load_text_encoder
from training.models import FAMILIES
from training.models.text_encoder import TextEncoder
from training.models.tokenizer import load_tokenizer, token_ids


@pytest.fixture(scope="module")
def mini():
    return TextEncoder((load_text_encoder(),), FAMILIES["sd15"].text_encoders, load_tokenizer())


@pytest.fixture(scope="module")
def clip(mini):
    return clip_encoder(mini)


def test_rows_of_clip_are_those_the_model_draws_with_up_to_the_end_mark(mini, clip):
    (block,) = clip.blocks("a sword on a table")
    length = int((token_ids(["a sword on a table"], mini.tokenizer)[0] != 49407).sum()) + 1
    whole = mini.encode("a sword on a table").text_embeds[0, :length]
    torch.testing.assert_close(block[1:], whole, atol=1e-4, rtol=0)  # fp32 over 12 layers, values near 10
    assert torch.equal(block[0], block[-1])  # the end mark's row stands for the whole


def test_a_long_prompt_has_as_many_blocks_as_the_encoder_needs(clip):
    words = ["sword"] * 74
    assert [len(block) for block in clip.blocks(" ".join([*words, "a"]))] == [78]  # exactly 77 tokens
    assert [len(block) for block in clip.blocks(" ".join([*words, "a", "bell"]))] == [78, 4]


def test_an_empty_prompt_has_a_block(clip):
    assert [len(block) for block in clip.blocks("")] == [3]


def test_brackets_weigh_nothing(clip):
    plain, weighted = clip.blocks("sword")[0], clip.blocks("(sword:1.4)")[0]
    assert len(weighted) > len(plain)  # they are read as characters


def test_the_hash_of_an_encoder_ignores_how_its_weights_are_stored():
    state = {"text_model.a": torch.tensor([0.1, 2.0]), "text_model.b": torch.ones(3)}
    half = {name.removeprefix("text_model."): value.half() for name, value in state.items()}
    assert weights_id(state) == weights_id({**half, "text_projection.weight": torch.randn(2)})
    assert weights_id(state) != weights_id({**state, "text_model.b": torch.zeros(3)})


def test_a_model_without_clip_l_is_refused_with_the_encoder_to_use(mini):
    other = TextEncoder(mini.models, FAMILIES["sd21"].text_encoders, mini.tokenizer)
    with pytest.raises(ValueError, match="Use a guard with the encoder `sentence`"):
        clip_encoder(other)


def test_rows_of_several_prompts_are_padded_and_say_so():
    rows, is_row = padded([torch.ones(2, 4), torch.ones(5, 4)])
    assert rows.shape == (2, 5, 4)
    assert is_row.tolist() == [[True, True, False, False, False], [True] * 5]


def test_each_prompt_is_encoded_once(clip):
    done = []
    rows = encode_rows(clip, ["bell", "hat", "bell"], on_progress=lambda *count: done.append(count))
    assert done == [(1, 2), (2, 2)]
    assert list(rows) == ["bell", "hat"]


def test_the_sentence_model_gives_its_tokens_below_their_mean():
    pytest.importorskip(MODULE)
    encoder = sentence_encoder()
    (block,) = encoder.blocks("a sword on a table")
    assert block.shape == (8, 384)  # mean, start, five words, end
    torch.testing.assert_close(block[0], block[1:].mean(dim=0))
    assert len(encoder.blocks("sword " * 300)) == 2


def test_near_words_are_near_in_the_sentence_model():
    pytest.importorskip(MODULE)
    near, far, word = (sentence_encoder().summary(text) for text in ("blade", "teapot", "sword"))
    assert torch.cosine_similarity(near, word, 0) > torch.cosine_similarity(far, word, 0)
