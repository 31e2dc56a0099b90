"""Tables and JSON rows are read strictly: a name that occurs twice or broken text is refused."""

import pytest

from training.system.tables import parse_json, parse_row, read_csv, read_text_file


def test_names_of_columns_are_in_one_spelling_and_cells_beyond_them_are_kept(tmp_path):
    (tmp_path / "a.csv").write_text("Title , ageYears\n x ,7,more,text\ny\n", encoding="utf-8-sig")
    assert list(read_csv(tmp_path / "a.csv", ("title",))) == [
        ("a.csv line 2", {"title": "x", "age_years": "7", "": "more text"}),
        ("a.csv line 3", {"title": "y", "age_years": ""}),
    ]


def test_a_column_that_occurs_twice_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("title,Title\nx,y\n")
    with pytest.raises(ValueError, match=r"a\.csv has the column 'title' twice\. Rename or remove one"):
        list(read_csv(tmp_path / "a.csv", ("title",)))


@pytest.mark.parametrize(
    "line", [b"{", b"[1]", b'{"a": 1, "a": 2}', b"\xff", b'{"a": "\\ud83d"}', b"[" * 100_000]
)
def test_a_line_that_is_not_an_object_of_unique_names_and_valid_text_has_no_fields(line):
    assert parse_row(line) is None


def test_a_line_in_utf_8_has_its_fields():
    assert parse_row('{"a": "é"}'.encode()) == {"a": "é"}
    assert parse_json("[1, 2]") == [1, 2]


def test_a_text_file_is_read_without_its_byte_order_mark(tmp_path):
    (tmp_path / "a.txt").write_text("é", encoding="utf-8-sig")
    assert read_text_file(tmp_path / "a.txt") == "é"
    (tmp_path / "b.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"b\.txt is not text in UTF-8"):
        read_text_file(tmp_path / "b.txt")
