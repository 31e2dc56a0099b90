"""The folder of a long run belongs to one set of settings, and keeps every complete row."""

import errno

import pytest

from training.system.work_folder import (
    RowLog,
    claim,
    locked,
    logged_rows,
    try_new_file,
    unfinished,
    write_whole,
)

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


LONGEST = ["a" * 255, "\u65e5" * 85, "\U0001f600" * 63 + "abc"]  # 255 bytes each


@pytest.mark.parametrize("name", LONGEST)
def test_a_file_with_the_longest_name_is_written_through_a_temporary_one(tmp_path, name):
    assert len(unfinished(tmp_path / name).name.encode()) <= 255
    write_whole(tmp_path / name, b"content")
    try_new_file(tmp_path / ("b" + name[1:] if name[0] == "a" else name[:-1]))
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(name, b"content")]


@pytest.mark.parametrize("name", ["a" * 256, "\u65e5" * 86, "new/" + "a" * 256, "a" * 256 + "/new"])
def test_a_name_that_is_too_long_is_refused_when_it_is_tried(tmp_path, name):
    with pytest.raises(OSError, match="too long") as refused:
        try_new_file(tmp_path / name)
    assert refused.value.errno == errno.ENAMETOOLONG
    assert not list(tmp_path.iterdir())


def test_a_file_where_a_folder_should_be_is_found_when_the_name_is_tried(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        try_new_file(tmp_path / "file" / "new")
    with pytest.raises(NotADirectoryError):
        try_new_file(tmp_path / "file" / "deep" / "new")


@pytest.mark.parametrize("name", ["new", "deep/er/new"])
def test_a_name_that_can_be_written_leaves_nothing_behind_when_it_is_tried(tmp_path, name):
    try_new_file(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_is_never_touched_by_a_trial(tmp_path):
    (tmp_path / "kept").write_text("precious")
    with pytest.raises(FileExistsError):
        try_new_file(tmp_path / "kept")
    assert (tmp_path / "kept").read_text() == "precious"
