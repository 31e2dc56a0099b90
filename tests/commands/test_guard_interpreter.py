"""The command `guard` with interpreters: trained on captions, tested with blocked words, put in front."""

import pytest
import torch

from command_line import answer_of, assert_refused, run
from training.guards.guard_file import read_guard_file
from training.guards.interpreter import Language

pytestmark = pytest.mark.usefixtures("small_vocabulary", "letters")
FEW = ("--steps", 2, "--target-fpr", 0.5, "--holdout", 0.3, "--batch-size", 4)
NOUNS, GROUNDS = ("sword", "axe", "cup", "boat"), ("red", "blue", "green", "white")


def letter_counts(texts):
    return torch.stack(
        [torch.bincount(torch.tensor(list(text.encode())), minlength=256).float() for text in texts]
    )


@pytest.fixture(scope="module")
def letters():
    """Let interpreters speak the letters that the tiny checkpoint reads, and mean their numbers."""
    spoken = Language(
        lambda text: list(text.encode()), lambda ids: bytes(ids).decode("latin-1"), letter_counts, "letters"
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("training.guards.language", lambda: spoken)
        patched.setattr("training.guards.interpreter.language", lambda: spoken)
        tiny = {
            "small": (1, 16, 2)
        }  # layers, width, heads: every prompt of the tiny checkpoint has 75 tokens
        patched.setattr("training.guards.train_interpreter.SIZES", tiny)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("interpreter")
    captions = [f"a {noun} on {ground}" for noun in NOUNS for ground in GROUNDS]
    (root / "captions.txt").write_text("\n".join(captions))
    pairs = [f"violence: sword | a sword on {ground} | a cup on {ground}" for ground in GROUNDS]
    (root / "pairs.txt").write_text("\n".join(pairs))
    (root / "words.txt").write_text("\n".join(chr(letter) for letter in b"aeiou"))
    return root


@pytest.fixture(scope="module")
def trained(base, files, letters, small_vocabulary):
    out = files / "interpreter.safetensors"
    words = ("--kind", "interpreter", "--base", base, "--captions", files / "captions.txt", "--out", out)
    return out, run("guard", "train", *words, *FEW, "--json")


def test_an_interpreter_is_trained_from_captions_and_says_what_it_measured(trained):
    out, outcome = trained
    facts = answer_of(outcome)
    assert (facts["captions"], facts["dropped_by_rule"]) == (16, 0)
    assert facts["held_out"]["n"] == 5
    assert facts["calibration"]["num_set"] + facts["calibration"]["num_measured"] == 5
    file = read_guard_file(out)
    assert file.kind == "interpreter"
    assert file.facts["options"]["size"] == "small"


def test_an_interpreter_is_tested_as_other_guards_are(trained, base, files):
    words = ("guard", "test", trained[0], "--base", base, "--pairs", files / "pairs.txt")
    text = run(*words, "--harmless", files / "captions.txt", "--threshold", -1.0).out
    assert "no blocked words" in text
    assert "4 of 4" in text
    assert "sword on" not in text


def test_blocked_words_are_for_interpreters(trained, base, files):
    """A decoder of two steps says few letters, all of them among the blocked ones or none."""
    words = ("guard", "test", trained[0], "--base", base, "--pairs", files / "pairs.txt", "--threshold", 1.5)
    free = answer_of(run(*words, "--harmless", files / "captions.txt", "--json"))
    assert free["twins"]["caught"]["hits"] == 0
    (files / "every.txt").write_text("\n".join(chr(number) for number in range(33, 127)))
    strict = run(*words, "--harmless", files / "captions.txt", "--words", files / "every.txt")
    assert "no blocked words" not in strict.out


def test_a_guard_of_concepts_refuses_blocked_words(base, files, tmp_path):
    guard = tmp_path / "concepts.safetensors"
    few = ("--steps", 2, "--heads", 2, "--head-width", 8, "--out-width", 8, "--target-fpr", 0.1)
    (tmp_path / "two.txt").write_text("sword | a sword on red | a cup on red\naxe | an axe | a cup")
    run("guard", "train", "--base", base, "--pairs", tmp_path / "two.txt", "--out", guard, *few)
    words = ("guard", "test", guard, "--base", base, "--pairs", files / "pairs.txt")
    assert_refused(
        run(*words, "--words", files / "words.txt", "--json"), "blocked words are for interpreters"
    )


def test_each_kind_says_what_it_is_trained_on(base, tmp_path):
    out = ("--base", base, "--out", tmp_path / "g.safetensors", "--json")
    assert_refused(run("guard", "train", "--kind", "interpreter", *out), "Give them with --captions")
    assert_refused(run("guard", "train", *out), "Give them with --pairs")
