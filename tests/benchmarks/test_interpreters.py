"""The benchmark of interpreters asks about prompts that are no captions, by the words that it says."""

from interpreters import TRAINED, UNKNOWN, asked, asked_of_each, captions, twins
from training.mini.large.concepts import KEPT, NEVER_KEPT, unseen_word, words_in_pairs
from training.models.tokenizer import load_tokenizer


def words_of(prompts):
    return {word.strip(",") for prompt in prompts for word in prompt.split()}


def first(concept):
    return words_in_pairs(concept)[0]


def test_no_caption_is_asked_about_and_no_prompt_is_twice():
    trained, pairs = captions(), twins()
    assert len(set(trained)) == len(trained)
    groups = [asked_of_each(group, first) for group in (KEPT, UNKNOWN, NEVER_KEPT)]
    prompts = [*pairs, *pairs.values(), *(prompt for group in groups for prompt in group)]
    assert not set(prompts) & set(trained)
    assert len(set(prompts)) == len(prompts)


def test_captions_have_the_words_of_pairs_and_none_that_is_unseen():
    known = words_of(captions())
    assert {one.words[first(one)] for one in (*TRAINED, *KEPT)} <= known
    unseen = {one.words[unseen_word(one)] for one in TRAINED}
    never = {word for one in (*UNKNOWN, *NEVER_KEPT) for word in one.words}
    assert not (unseen | never) & known


def test_a_harmless_text_differs_from_the_prompt_behind_it_in_one_token():
    tokenizer = load_tokenizer()
    for pair in twins().items():
        safe, unsafe = tokenizer(list(pair), verbose=False).input_ids
        assert sum(first != second for first, second in zip(safe, unsafe, strict=True)) == 1


def test_prompts_of_several_concepts_share_ground_and_wording():
    safe, unsafe = asked(1, (TRAINED[0], 0), (TRAINED[1], 0))
    assert safe.split(",")[1] == unsafe.split(",")[1]
