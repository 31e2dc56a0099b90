"""Figures in the repository: lines by row and seed, and the table of the documentation, which shows them."""

import re
import time
from statistics import mean

import pytest

import dev
import recorded
from large_world import RECORD

ORDER = ("base", "ours", "theirs")


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "figures" / "table.csv"
    assert recorded.read(path) == {}
    recorded.write(path, {("ours", 0): {"IP": 0.25, "kept": 1.0}}, ORDER)
    assert recorded.read(path) == {("ours", 0): {"IP": 0.25, "kept": 1.0}}
    assert path.read_text(encoding="utf-8").splitlines()[0] == "row,seed,measured,IP,kept"


def test_other_rows_and_seeds_stay_and_the_same_one_is_replaced(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    monkeypatch.setattr(recorded.time, "strftime", lambda form: "2026-01-01")
    recorded.write(path, {("theirs", 1): {"IP": 0.5}, ("base", 0): {"IP": 1.0}}, ORDER)
    monkeypatch.setattr(recorded.time, "strftime", lambda form: "2026-02-02")
    recorded.write(path, {("theirs", 0): {"IP": 0.75}, ("base", 0): {"IP": 0.875}}, ORDER)
    assert path.read_text(encoding="utf-8").splitlines()[1:] == [
        "base,0,2026-02-02,0.875",
        "theirs,0,2026-02-02,0.75",
        "theirs,1,2026-01-01,0.5",
    ]
    assert recorded.by_row(recorded.read(path), ORDER) == {
        "base": [{"IP": 0.875}],
        "theirs": [{"IP": 0.75}, {"IP": 0.5}],
    }


def test_a_figure_that_a_row_lacks_is_blank(tmp_path):
    path = tmp_path / "table.csv"
    recorded.write(path, {("base", 0): {"IP": 1.0}, ("ours", 0): {"kept": 0.5}}, ORDER)
    assert recorded.read(path) == {("base", 0): {"IP": 1.0}, ("ours", 0): {"kept": 0.5}}


def test_the_documentation_shows_the_recorded_means():
    text = (dev.ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
    table = text.split("<!-- docs/figures/large_world.csv -->")[1].split("\n\n")[0]
    header, _, *lines = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table.strip().splitlines()
    ]
    of_rows = recorded.by_row(recorded.read(RECORD), [row for row, *_ in lines])
    assert {row for row, *_ in lines} == {row for row, _ in recorded.read(RECORD)}
    for row, seeds, *cells in lines:
        assert int(seeds) == len(of_rows[row])
        for column, cell in zip(header[2:], cells, strict=True):
            expected = mean(figures[column] for figures in of_rows[row])
            assert float(re.match(r"[\d.]+", cell)[0]) == pytest.approx(expected, abs=0.00051), (row, column)


def test_a_line_says_the_day_of_its_measurement():
    lines = RECORD.read_text(encoding="utf-8").splitlines()[1:]
    days = [time.strptime(re.search(r"\d{4}-\d\d-\d\d", line)[0], "%Y-%m-%d") for line in lines]
    assert days
    assert all(day.tm_year >= 2026 for day in days)
