"""`pairs rewrite` from the words typed to the file it writes."""

import json

import pytest

from training.__main__ import main
from training.commands.pairs_rewrite import METHODS
from training.making.rewriting import REWRITERS


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Return a function that rewrites two prompts; it returns exit code, JSON answer and last words."""
    (tmp_path / "prompts.txt").write_text("a skull by a road\na kite by a road\n", encoding="utf-8")
    (tmp_path / "terms.csv").write_text("skull,flower\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = main(["pairs", "rewrite", "prompts.txt", *words, "--out", "made.jsonl", "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err.splitlines()[-1]

    return run


def test_the_methods_are_those_of_the_registry():
    assert tuple(REWRITERS) == METHODS


def test_accepted_pairs_are_written_and_rejected_lines_counted(run, tmp_path):
    code, answer, _ = run("--table", "terms.csv", "--category", "Harrasment")
    assert (code, answer["accepted"], answer["rejected"]) == (0, 1, {"there is no rewrite for it": [2]})
    assert json.loads((tmp_path / "made.jsonl").read_text()) == {
        "category": ["harassment"],
        "unsafe_prompt": "a skull by a road",
        "safe_prompt": "a flower by a road",
    }
    code, _, said = run("--table", "terms.csv")
    assert code == 2
    assert "made.jsonl already exists" in said


def test_what_is_missing_is_said_and_nothing_written(run, tmp_path):
    assert "by a table needs one" in run()[2]
    assert "gone.csv" in run("--table", "gone.csv")[2]
    far = ("--method", "endpoint", "--endpoint", "http://192.0.2.7/v1", "--endpoint-model", "m")
    assert "--allow-host" in run(*far)[2]
    assert run(*far)[0] == 2
    near = ("--method", "endpoint", "--endpoint", "http://127.0.0.1:1/v1", "--endpoint-model", "m")
    code, _, said = run(*near)
    assert code == 1
    assert "gave no answer" in said
    assert not (tmp_path / "made.jsonl").exists()
