"""Everyday words in the sentences of the pairs: near to what is unlearned, and without its words."""

import pytest

from training.pairs.everyday import Everyday, everyday
from training.pairs.sentences import with_sentences

WORDS = Everyday(("kettle", "otter", "lantern", "harbour"), ("meadow", "violin"))


def kept_sentences(unsafe, safe, words=WORDS):
    """Return the kept prompts that are sentences of one pair, in order."""
    return [prompt for prompt in with_sentences(words, [(unsafe, safe)]).kept if prompt not in words.kept]


@pytest.mark.parametrize(
    ("unsafe", "safe", "first"),
    [
        ("a knife on a table", "a spoon on a table", "a kettle on a table"),
        ("Knife, on a table", "spoon, on a table", "kettle, on a table"),
        ("a man hitting a man", "a man hugging a man", "a man kettle a man"),
        ("blood on his torn shirt", "juice on his new shirt", "kettle on his otter shirt"),
        ("a gun on a table", "a table", "a kettle on a table"),  # a shared word is found anywhere
        ("le couteau à côté du pain", "la cuillère à côté du pain", "le kettle à côté du pain"),
    ],
)
def test_everyday_words_take_the_place_of_the_words_that_only_the_unsafe_prompt_has(unsafe, safe, first):
    assert kept_sentences(unsafe, safe)[0] == first


@pytest.mark.parametrize(
    ("unsafe", "safe"),
    [
        ("the same prompt", "the same prompt"),
        ("a table", "a table and a spoon"),  # nothing of it is its own
        ("knife", "spoon"),  # nothing is shared
        ("", "a spoon"),
        ("", ""),
    ],
)
def test_a_pair_without_shared_or_without_own_words_gives_no_sentence(unsafe, safe):
    assert with_sentences(WORDS, [(unsafe, safe)]) == WORDS


def test_every_prompt_stays_whole_and_as_many_sentences_are_added():
    whole = everyday(64, 12)
    kept, measured = with_sentences(whole, [("a knife on a table", "a spoon on a table")])
    assert (len(kept), len(measured)) == (128, 24)
    assert (kept[:64], measured[:12]) == whole
    for prompt in (*kept[64:], *measured[12:]):
        assert prompt.startswith("a ")
        assert prompt.endswith(" on a table")


def test_what_is_measured_has_words_of_its_own():
    kept, measured = with_sentences(WORDS, [("a knife on a table", "a spoon on a table")])
    assert not set(kept) & set(measured)
    assert measured == ("meadow", "violin", "a meadow on a table", "a violin on a table")


def test_a_word_that_makes_a_prompt_unsafe_is_never_put_in():
    words = Everyday(("a Kettle with a knife", "a knife on bread", "bread", "a gun and a kettle"))
    pairs = [("a knife on a table", "a spoon on a table"), ("a kettle of blood", "a kettle of juice")]
    kept = with_sentences(words, pairs).kept
    assert kept[4:] == (
        "a kettle on a table",
        "a with on a table",
        "a kettle of bread",
        "a kettle of kettle",
    )
    assert with_sentences(Everyday(("knife", "blood")), pairs) == Everyday(("knife", "blood"))


def test_the_sentences_are_spread_over_all_pairs():
    pairs = [(f"a knife near {place} road", f"a spoon near {place} road") for place in range(100)]
    places = [prompt.split()[3] for prompt in with_sentences(everyday(10, 0), pairs).kept[10:]]
    assert places == [str(place) for place in range(0, 100, 10)]


def test_no_word_is_used_twice_while_others_are_left():
    kept = with_sentences(everyday(64, 0), [("a knife on a table", "a spoon on a table")]).kept
    words = [prompt.split()[1] for prompt in kept[64:]]
    assert len(set(words)) == len(words)
