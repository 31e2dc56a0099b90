"""`stress --guard` and `evaluate --guard`: what is blocked is not drawn, and attacks adapt to the guard."""

import pytest
import torch

from command_line import answer_of, assert_refused, run
from stressed import FAST, write_files
from training.evaluation import Judge

pytestmark = pytest.mark.usefixtures("small_vocabulary", "always_unsafe")
SMALL = ("--directions", 1, "--samples", 1, "--rounds", 1, "--validations", 1, "--rewordings", 2)
TOKENS = ("--population", 4, "--generations", 2, "--free-tokens", 3)
ALL, NONE = ("--guard-threshold", -1.0), ("--guard-threshold", 1.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory, small_vocabulary):
    folder = write_files(tmp_path_factory.mktemp("guarded"))
    lines = [f"{noun} | a {noun} on {ground} | a spoon on {ground}" for noun in "ab" for ground in "cd"]
    (folder / "lines.txt").write_text("\n".join(lines))
    sizes = ("--steps", 2, "--heads", 2, "--head-width", 8, "--out-width", 8)
    words = ("--base", folder / "tiny.safetensors", "--pairs", folder / "lines.txt")
    run("guard", "train", *words, *sizes, "--out", folder / "guard.safetensors")
    return folder


@pytest.fixture
def always_unsafe(monkeypatch):
    categories = ("hate", "violence")
    judge = Judge("all", "1", "plain", 0.5, categories, lambda images: torch.ones(len(images), 2))
    monkeypatch.setattr("training.evaluation.make_judge", lambda name, **parts: judge)


def stress(files, action, *words):
    shared = ("--base", files / "tiny.safetensors", "--prompts", files / "prompts.csv", *FAST)
    return run("stress", action, *shared, "--guard", files / "guard.safetensors", *words)


def rates(outcome):
    return {
        model["model"]: [result["rate"] for result in model["results"]]
        for model in answer_of(outcome)["models"]
    }


def test_a_search_for_words_fails_where_the_guard_blocks_all_and_succeeds_where_it_blocks_none(files):
    words = ("words", "--table", files / "table.csv", *SMALL)
    name = "tiny behind guard.safetensors"
    assert rates(stress(files, *words, *ALL)) == {"tiny": [1, 1], name: [0, 0]}
    assert rates(stress(files, *words, *NONE)) == {"tiny": [1, 1], name: [1, 1]}


def test_a_search_for_tokens_looks_for_those_that_pass_the_guard(files, monkeypatch):
    monkeypatch.setattr("tiny_checkpoint.tokens.decode", lambda ids, **_: "words", raising=False)
    words = ("tokens", "--concept", files / "concept.txt", *TOKENS)
    outcome = stress(files, *words, *ALL)
    assert rates(outcome) == {"tiny": [1], "tiny behind guard.safetensors": [0]}
    *_, behind = answer_of(outcome)["models"]
    assert "searching only what passes the guard" in behind["results"][0]["attack"]
    assert rates(stress(files, *words, *NONE))["tiny behind guard.safetensors"] == [1]


def test_outcomes_of_one_threshold_are_not_taken_for_those_of_another(files, tmp_path):
    words = ("words", "--table", files / "table.csv", *SMALL, "--out", tmp_path / "kept")
    stress(files, *words, *ALL)
    assert_refused(stress(files, *words, *NONE), "made with another guard")


def test_a_benchmark_measures_every_model_behind_the_guard_too(files, tmp_path):
    shared = ("--base", files / "tiny.safetensors", "--prompts", f"{files / 'prompts.csv'}", *FAST[:-1])
    guard = ("--guard", files / "guard.safetensors", *ALL)
    facts = answer_of(run("evaluate", *shared, "--out", tmp_path / "bench", *guard, "--json"))
    shares = {row["model"]: row["ip"] for row in facts["rates"] if row["group"] == "violence"}
    assert shares == {"tiny": 1, "tiny behind guard.safetensors": 0}
    assert facts["guard"]["guard_threshold"] == -1.0


def test_a_guard_of_another_checkpoint_is_refused_before_anything_is_drawn(files, tmp_path):
    (tmp_path / "no.safetensors").write_bytes(b"")
    words = ("words", "--table", files / "table.csv", *SMALL, "--guard", tmp_path / "no.safetensors")
    assert_refused(stress(files, *words), "no.safetensors is empty")
