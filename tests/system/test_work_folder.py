"""The folder of a long run belongs to one set of settings, and keeps every complete row."""

import pytest

from training.system.work_folder import RowLog, claim, locked, logged_rows

SETTINGS = {"seed": 1, "sides": (2, 3)}


def test_a_folder_is_claimed_once_and_continued_with_the_same_settings(tmp_path):
    for _ in range(2):
        claim(tmp_path / "run", SETTINGS, file="settings.json", holds="results")
    with pytest.raises(ValueError, match=r"run holds results made with another seed\. Choose a new folder"):
        claim(tmp_path / "run", {**SETTINGS, "seed": 2}, file="settings.json", holds="results")


def test_a_folder_with_other_files_is_not_claimed(tmp_path):
    (tmp_path / "letter.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"holds something else, such as letter\.txt"):
        claim(tmp_path, SETTINGS, file="settings.json", holds="results")
    assert [entry.name for entry in tmp_path.iterdir()] == ["letter.txt"]


def test_the_rows_of_all_processes_are_read_and_an_incomplete_one_is_overwritten(tmp_path):
    for number in range(2):
        with RowLog(tmp_path, number) as log:
            log.add({"process": number})
    with open(tmp_path / "rows.jsonl", "ab") as file:
        file.write(b'{"process": ')
    assert sorted(row["process"] for row in logged_rows(tmp_path)) == [0, 1]
    with RowLog(tmp_path, 0) as log:
        log.add({"process": 2})
    assert sorted(row["process"] for row in logged_rows(tmp_path)) == [0, 1, 2]


def test_a_locked_folder_is_refused_until_it_is_released(tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(ValueError, match="another run is using the folder"),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass
