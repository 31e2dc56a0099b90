"""A run of many trials that is killed keeps the results of those that ended."""

import json

import pytest

import kept_trials


def work(number: int) -> list[int]:
    return [number]


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch):
    def run_all(work, calls):
        yield from ((call, work(*call)) for call in calls)

    monkeypatch.setattr(kept_trials, "run_all", run_all)


def test_a_stopped_run_continues_where_it_stopped(tmp_path):
    file = tmp_path / "trials" / "part.jsonl"
    run = kept_trials.run_kept(work, [(1,), (2,), (3,)], file)
    assert next(run) == ((1,), [1])
    run.close()
    changed = kept_trials.run_kept(lambda number: [-number], [(1,), (2,)], file)
    assert list(changed) == [((1,), [1]), ((2,), [-2])]


def test_a_trial_with_a_partly_written_line_runs_again(tmp_path):
    file = tmp_path / "part.jsonl"
    file.write_text('{"call": [1], "result": [1]}\n{"call": [2], "res', encoding="utf-8")
    assert list(kept_trials.run_kept(work, [(1,), (2,)], file)) == [((1,), [1]), ((2,), [2])]
    lines = file.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["call"] for line in lines] == [[1], [2]]


def test_trials_can_run_in_this_process_in_order(tmp_path):
    numbers = []
    trials = kept_trials.run_kept(
        lambda number: numbers.append(number), [(2,), (1,)], tmp_path / "a", here=True
    )
    assert next(trials) == ((2,), None)
    assert numbers == [2]
    assert list(trials) == [((1,), None)]
