"""A short form of `benchmarks/survival.py`."""

import json

import pytest

import survival

KILLS = 10


@pytest.mark.slow
def test_ten_kills_tear_nothing_lose_nothing_and_change_no_byte(tmp_path):
    log = tmp_path / "log.jsonl"
    figures = survival.measure(KILLS - 4, log)
    assert survival.measure(KILLS, log).keys() == figures.keys()  # a stopped loop continues
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert sum(row["kind"] in (survival.TIME, survival.FILE) for row in rows) >= KILLS
    for row in rows:
        assert not row.get("damaged"), row
        assert not row.get("gone"), row
        assert not row.get("other_bytes"), row
        assert not row["inputs_changed"], row
