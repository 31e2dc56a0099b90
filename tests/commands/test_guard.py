"""The command `guard`: a guard trained and tested from the command line, and what it refuses."""

import pytest
from safetensors.torch import load_file, save_file

from command_line import answer_of, assert_refused, run
from training.commands.guard import KINDS
from training.guards import GUARDS
from training.guards.guard_file import read_guard_file

pytestmark = pytest.mark.usefixtures("small_vocabulary")
FEW = ("--steps", 30, "--heads", 2, "--head-width", 8, "--out-width", 8, "--target-fpr", 0.1)


@pytest.fixture(scope="module")
def concepts(tmp_path_factory):
    file = tmp_path_factory.mktemp("concepts") / "concepts.txt"
    lines = [
        f"violence: {noun} | a {noun} on {ground} | a spoon on {ground}"
        for noun in ("sword", "axe", "bomb")
        for ground in ("red", "blue", "green", "white")
    ]
    file.write_text("\n".join(lines))
    return file


@pytest.fixture(scope="module")
def trained(base, concepts, small_vocabulary, tmp_path_factory):
    out = tmp_path_factory.mktemp("guard") / "guard.safetensors"
    return out, run("guard", "train", "--base", base, "--pairs", concepts, "--out", out, *FEW, "--json")


def test_the_kinds_to_train_are_those_of_the_registry():
    assert KINDS == tuple(GUARDS)


def test_a_guard_is_trained_from_a_text_and_says_what_it_measured(trained):
    out, outcome = trained
    facts = answer_of(outcome)
    assert (facts["concepts"], facts["rows"]) == (3, 12)
    assert facts["held_out"]["num_unsafe"] == 1  # a tenth of twelve
    assert facts["unseen_concepts"] is None
    assert read_guard_file(out).facts["options"]["steps"] == 30


def test_a_guard_is_tested_on_other_prompts(trained, base, concepts):
    facts = answer_of(run("guard", "test", trained[0], "--base", base, "--pairs", concepts, "--json"))
    assert facts["kind"] == "static"
    assert facts["twins"]["num_unsafe"] == 12
    assert facts["harmless"]["num_safe"] == 400
    assert facts["per_category"]["violence"]["n"] == 12
    text = run("guard", "test", trained[0], "--base", base, "--pairs", concepts, "--threshold", -1.0).out
    assert "12 of 12" in text
    assert "not its own" in text
    assert "on green" not in text


def test_another_checkpoint_is_refused(trained, base, tmp_path, concepts):
    tensors = load_file(base)
    name = next(name for name in tensors if name.endswith("token_embedding.weight"))
    other = tmp_path / "other.safetensors"
    save_file({**tensors, name: tensors[name] + 1}, other)
    outcome = run("guard", "test", trained[0], "--base", other, "--pairs", concepts, "--json")
    assert_refused(outcome, "guard.safetensors was trained for the clip encoder")


def test_the_clip_encoder_needs_a_base(concepts, tmp_path):
    outcome = run("guard", "train", "--pairs", concepts, "--out", tmp_path / "g.safetensors", "--json")
    assert_refused(outcome, "Give it with --base")


def test_too_few_harmless_prompts_are_refused_before_training(base, concepts, tmp_path):
    (tmp_path / "few.txt").write_text("a cup\na boat\n")
    words = ("--harmless", tmp_path / "few.txt", "--out", tmp_path / "g.safetensors", "--json")
    outcome = run("guard", "train", "--base", base, "--pairs", concepts, *words)
    assert_refused(outcome, "at least 40 harmless prompts")
    assert not (tmp_path / "g.safetensors").exists()
