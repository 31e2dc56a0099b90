"""The action `pairs rewrite`, from the command to the file it writes."""

import json

import pytest

from command_line import answer_of, assert_refused, run
from training.commands.pairs_making import METHODS
from training.making.rewriting import REWRITERS


@pytest.fixture
def rewrite(tmp_path, monkeypatch):
    """Return a function that rewrites two prompts into `made.jsonl` with more options."""
    (tmp_path / "prompts.txt").write_text("a skull by a road\na kite by a road\n", encoding="utf-8")
    (tmp_path / "terms.csv").write_text("skull,flower\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return lambda *words: run("pairs", "rewrite", "prompts.txt", *words, "--out", "made.jsonl", "--json")


def test_the_methods_are_those_of_the_registry():
    assert tuple(REWRITERS) == METHODS


def test_accepted_pairs_are_written_and_rejected_lines_counted(rewrite, tmp_path):
    facts = answer_of(rewrite("--table", "terms.csv", "--category", "Harrasment"))
    assert (facts["accepted"], facts["rejected"]) == (1, {"there is no rewrite for it": [2]})
    assert json.loads((tmp_path / "made.jsonl").read_text()) == {
        "category": ["harassment"],
        "unsafe_prompt": "a skull by a road",
        "safe_prompt": "a flower by a road",
    }
    assert_refused(rewrite("--table", "terms.csv"), "made.jsonl already exists")


def test_missing_input_is_named_and_nothing_written(rewrite, tmp_path):
    assert_refused(rewrite(), "by a table needs a table")
    assert_refused(rewrite("--table", "gone.csv"), "gone.csv")
    remote = ("--method", "endpoint", "--endpoint", "http://192.0.2.7/v1", "--endpoint-model", "m")
    assert_refused(rewrite(*remote), "--allow-host")
    local = ("--method", "endpoint", "--endpoint", "http://127.0.0.1:1/v1", "--endpoint-model", "m")
    outcome = rewrite(*local)
    assert outcome.code == 1
    assert "gave no answer" in outcome.err.splitlines()[-1]
    assert not (tmp_path / "made.jsonl").exists()
