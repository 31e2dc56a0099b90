"""The command line: help, exit codes and errors of one line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import assert_refused, run
from training.commands import COMMANDS
from training.config import ExtractConfig, MergeConfig, TrainConfig, options
from training.losses import LOSSES
from training.merging import MERGE_METHODS

ROOT = Path(__file__).parents[1]
ACTIONS = ("check", "import-coprov2", "make", "rewrite", "weigh")
WORDS = [[name] for name in COMMANDS] + [["pairs", name] for name in ACTIONS]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_every_command_has_help(words):
    outcome = run(*words, "--help")
    assert outcome.code == 0
    assert f"python -m training {' '.join(words)}" in outcome.out


def test_the_help_names_every_command():
    assert all(name in run("--help").out for name in COMMANDS)


@pytest.mark.parametrize(
    ("command", "config", "registry"),
    [("train", TrainConfig, LOSSES), ("merge", MergeConfig, MERGE_METHODS), ("extract", ExtractConfig, ())],
)
def test_the_help_lists_every_option_of_the_config_and_every_entry_of_the_registry(command, config, registry):
    text = run(command, "--help").out
    for option in options(config):
        assert f"--{option.name.replace('_', '-')}" in text
    assert not registry or f"{{{','.join(registry)}}}" in text


def test_help_without_a_registry_does_not_import_torch():
    code = (
        "import sys\nfrom training.__main__ import main\n"
        f"pairs = [['pairs', action] for action in {ACTIONS}]\n"
        "for words in ([], ['mini'], *pairs, ['info'], ['extract']):\n"
        "    try: main([*words, '--help'])\n"
        "    except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL)
    assert process.returncode == 0


def test_an_unknown_command_or_option_is_refused_in_one_line():
    assert_refused(run("fly"), "fly")
    assert_refused(run(), "COMMAND")
    outcome = run("info", "x.safetensors", "--colour")
    assert_refused(outcome, "--colour")
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [RuntimeError("training changed nothing\nin 2 steps"), OSError(28, "No space left on device")],
    ids=["run", "disk"],
)
def test_a_failing_command_prints_one_line_and_exits_with_code_one(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("training.mini.build.build_mini", fail)
    outcome = run("mini", "--out", tmp_path)
    assert (outcome.code, outcome.out) == (1, "")
    message = " ".join(str(error).split())
    assert outcome.err.splitlines()[-1] == f"python -m training mini: {message}"
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("message", "shown"), [("", "full"), ("Unable to allocate 9 GiB", r"full \(Unable to allocate 9 GiB\)")]
)
def test_a_full_memory_is_one_line_with_advice(tmp_path, monkeypatch, message, shown):
    def fail(*_, **__):
        raise MemoryError(message)

    monkeypatch.setattr("training.mini.build.build_mini", fail)
    outcome = run("mini", "--out", tmp_path)
    assert (outcome.code, outcome.out) == (1, "")
    pattern = rf"python -m training mini: this machine's memory is {shown}\. Close other programs, .*"
    assert re.fullmatch(pattern, outcome.err.splitlines()[-1])
    assert "Traceback" not in outcome.err
