"""The same command gives the same bytes, whatever the global random state is, and leaves that state alone.

The commands come from the registry: a command without a small run in `tiny_commands.py` fails a test.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest

import tiny_commands
from command_line import parsers
from tiny_commands import (
    RUNS,
    SAVING,
    damaged,
    global_random_state,
    seed_globally,
    start,
    timeless,
    tree,
    write_given,
)

ELSEWHERE = {
    "mini",  # draws for a minute, and is tested in `tests/mini/test_build_mini.py`
    "pairs label",  # asks a model of the user; `tests/making/test_label_pairs.py` stops and resumes it
}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return write_given(tmp_path_factory.mktemp("given") / "given")


def test_every_command_has_a_small_run():
    assert RUNS.keys() | ELSEWHERE == parsers().keys()


@pytest.mark.parametrize("name", [*RUNS, SAVING])
def test_a_command_repeats_its_bytes_and_leaves_the_global_random_state_alone(given, tmp_path, name):
    results, inputs = [], tree(given)
    for seed in (1, 2):
        seed_globally(seed)
        before = global_random_state()
        outcome = start(name, given, tmp_path / "new")
        assert global_random_state() == before
        answer = None
        if outcome:
            assert outcome.code == 0, outcome.err
            answer = timeless(json.loads(outcome.out))
        assert damaged(tmp_path / "new") == []
        results.append((answer, tree(tmp_path / "new")))
        shutil.rmtree(tmp_path / "new")  # the second run has the same paths, which reports quote
    (answer, files), (other_answer, other_files) = results
    assert answer == other_answer
    assert files.keys() == other_files.keys()
    assert [path for path in files if files[path] != other_files[path]] == []
    assert tree(given) == inputs


@pytest.mark.slow
def test_another_process_with_another_order_of_sets_writes_the_same_bytes(tmp_path):
    results = []
    for seed in ("1", "2"):
        environment = os.environ | {
            "PYTHONHASHSEED": seed,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        command = [sys.executable, tiny_commands.__file__, "new"]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
        results.append(tree(tmp_path))
        shutil.rmtree(tmp_path / "new")  # the second run has the same paths, which answers quote
    first, second = results
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
