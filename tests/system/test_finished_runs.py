"""Finished runs: found by the content of their inputs, and only while their result is whole."""

import json
import os

import pytest

from training.system.finished_runs import FinishedRuns


@pytest.fixture
def runs(tmp_path):
    return FinishedRuns(tmp_path / "finished")


@pytest.fixture
def result(tmp_path):
    file = tmp_path / "expert.safetensors"
    file.write_bytes(b"weights")
    return file


def test_a_run_is_found_by_equal_inputs_in_any_order_and_by_no_others(runs, result):
    runs.add(runs.key(pairs="a", steps=2), result, {"loss": [0.5]})
    assert runs.find(runs.key(steps=2, pairs="a")) == (result, {"loss": [0.5]})
    assert runs.find(runs.key(pairs="a", steps=3)) is None
    assert runs.find(runs.key(pairs="a")) is None


def test_a_run_whose_file_was_changed_or_deleted_is_not_found(runs, result):
    key = runs.key(pairs="a")
    runs.add(key, result, {})
    result.write_bytes(b"changed")
    assert runs.find(key) is None
    result.write_bytes(b"weights")
    assert runs.find(key)
    result.unlink()
    assert runs.find(key) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"file": "x"}', '{"file": 1, "sha256": 2}'])
def test_a_damaged_record_counts_as_none_and_is_replaced(runs, result, tmp_path, text):
    key = runs.key(pairs="a")
    runs.add(key, result, {})
    (tmp_path / "finished" / f"{key}.json").write_text(text, encoding="utf-8")
    assert runs.find(key) is None
    runs.add(key, result, {})
    assert runs.find(key)


def test_only_the_newest_results_are_kept_and_foreign_files_never_deleted(tmp_path, result):
    runs = FinishedRuns(tmp_path / "finished", kept=2)
    keys = [runs.key(number=number) for number in range(3)]
    for number, key in enumerate(keys):
        file = runs.file(key, ".safetensors")
        file.write_bytes(b"merged")
        runs.add(key, file, {})
        os.utime(tmp_path / "finished" / f"{key}.json", ns=(number, number))
    runs.add(last := runs.key(number=3), result, {})
    assert [bool(runs.find(key)) for key in (*keys, last)] == [False, False, True, True]
    assert {path.stem for path in (tmp_path / "finished").iterdir()} == {keys[2], last}
    assert result.exists()


def test_a_record_that_cannot_be_written_is_a_warning(tmp_path, result, caplog):
    (tmp_path / "finished").write_text("a file where the folder should be")
    runs = FinishedRuns(tmp_path / "finished")
    runs.add(runs.key(pairs="a"), result, {})
    assert "may be repeated" in caplog.text


def test_a_record_is_plain_json(runs, result, tmp_path):
    runs.add(runs.key(pairs="a"), result, {"loss": [0.5]})
    (record,) = (tmp_path / "finished").iterdir()
    assert json.loads(record.read_text(encoding="utf-8"))["values"] == {"loss": [0.5]}
