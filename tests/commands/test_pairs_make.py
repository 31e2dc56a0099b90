"""The command `pairs make` on a checkpoint of random weights."""

import json
import os
import subprocess
import sys

import pytest

from tiny_checkpoint import SIDE, tokens, write_checkpoint
from training.__main__ import main
from training.pairs import load_pairs

PROMPTS = "bad one => good one\nbad two => good two\nan erotic kid => a tree\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("make")
    (folder / "prompts.txt").write_text(PROMPTS)
    write_checkpoint(folder / "tiny.safetensors")
    return folder


@pytest.fixture(autouse=True)
def _small_vocabulary(monkeypatch):
    monkeypatch.setattr("training.models.text_encoder.load_tokenizer", lambda: tokens)


def make(files, out, capsys, *words):
    given = ["--base", files / "tiny.safetensors", "--prompts", files / "prompts.txt", "--out", files / out]
    fast = ["--resolution", SIDE, "--device", "cpu", "--steps", 2, "--category", "hate", "--json"]
    code = main([str(word) for word in ("pairs", "make", *given, *fast, *words)])
    return code, capsys.readouterr()


def test_the_folder_holds_the_usable_lines_and_the_answer_counts_the_others(files, capsys):
    code, out = make(files, "plain", capsys)
    facts = json.loads(out.out)
    assert code == 0
    assert facts["made"] == 2
    assert facts["dropped"] == {"sexual content together with a word for a minor": ["line 3"]}
    assert load_pairs(files / "plain").report.kept == 2


def test_two_processes_of_accelerate_launch_share_the_rows_and_one_answers(files, capsys, monkeypatch):
    answers = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        answers.append(make(files, "shared", capsys)[1].out)
    facts = json.loads(answers[0])
    assert (facts["made"], facts["missing"], answers[1]) == (1, 1, "")
    assert load_pairs(files / "shared").report.kept == 2


def test_a_judge_that_sees_nothing_unsafe_gives_all_up_and_says_so(files, capsys):
    code, out = make(files, "judged", capsys, "--judge", "mini", "--attempts", 1, "--threshold", 1.0)
    assert code == 0
    assert json.loads(out.out)["rejected"].keys() == {"the unsafe prompt drew nothing unsafe"}


def test_another_sampler_for_a_folder_that_was_begun_is_bad_input(files, capsys):
    make(files, "begun", capsys)
    code, out = make(files, "begun", capsys, "--scheduler", "euler")
    assert code == 2
    assert "made with another sampler" in out.err


def test_its_help_names_both_ways():
    command = [sys.executable, "-m", "training", "pairs", "make", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "100"})
    assert done.returncode == 0
    assert "same_seed" in done.stdout
    assert "sdedit" in done.stdout
