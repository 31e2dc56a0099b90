"""The long fuzzing run: its log, its list of crashes, and that a stopped run continues."""

import json
import tempfile

import pytest

import fuzzing
from readers import READERS


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(fuzzing, "CHUNK", 5)


def test_every_reader_gets_the_same_number_of_inputs_and_none_crashes(tmp_path):
    figures = fuzzing.measure(10, tmp_path / "log.jsonl")
    assert figures.keys() == READERS.keys()
    assert {row["inputs"] for row in figures.values()} == {10}
    assert all(row["read"] + row["refused"] == 10 and row["crashes"] == 0 for row in figures.values())


def test_a_stopped_run_continues_after_the_chunks_that_its_log_holds(tmp_path, monkeypatch):
    log = tmp_path / "log.jsonl"
    monkeypatch.setattr(fuzzing, "READERS", {"picture": READERS["picture"]})
    fuzzing.measure(10, log)
    rows = log.read_text().splitlines()
    fuzzing.measure(15, log)
    assert log.read_text().splitlines()[:2] == rows
    assert [json.loads(row)["seed"] for row in log.read_text().splitlines()] == [0, 1, 2]


def test_a_crash_is_listed_with_its_error_and_its_input_and_the_run_goes_on(tmp_path, monkeypatch):
    def read(folder):
        raise KeyError("no such thing")

    log = tmp_path / "log.jsonl"
    monkeypatch.setattr(fuzzing, "READERS", {"picture": READERS["picture"]._replace(read=read)})
    figures = fuzzing.measure(5, log)
    assert figures["picture"]["crashes"] == 5
    crashes = json.loads(log.read_text())["crashes"]
    assert {crash["error"] for crash in crashes} == {"KeyError: 'no such thing'"}
    assert all(bytes.fromhex(crash["input"]) is not None for crash in crashes)


def test_a_reader_that_writes_something_crashes(tmp_path, monkeypatch):
    writing = READERS["picture"]._replace(read=lambda folder: tempfile.mkstemp(dir=folder))
    monkeypatch.setattr(fuzzing, "READERS", {"picture": writing})
    log = tmp_path / "log.jsonl"
    assert fuzzing.measure(5, log)["picture"]["crashes"] == 5
    assert "a reader wrote something" in log.read_text()
