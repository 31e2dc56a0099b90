"""Tables and JSON rows are read strictly: a name that occurs twice or broken text is refused."""

import csv
import json

import pytest

from training.system.tables import parse_json, parse_row, read_csv, read_json, read_json_rows


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
    ("text", "row"),
    [
        ("prompt,category,,\r\na,hate,,\r\n,,,\r\n", {"prompt": "a", "category": "hate"}),  # Excel's spares
        (
            ",,prompt,category\n0,7,a,hate\n",
            {"prompt": "a", "category": "hate", "": "0 7"},
        ),  # pandas' indices
        ("sep=,\r\nprompt,category\r\na,hate\r\n", {"prompt": "a", "category": "hate"}),
        ('"sep=;"\nprompt;category\n"a; b";hate\n', {"prompt": "a; b", "category": "hate"}),
        ("prompt,category\ra,hate\r", {"prompt": "a", "category": "hate"}),  # Macintosh
        ("\n\nprompt,category\na,hate", {"prompt": "a", "category": "hate"}),
        ('prompt,category\n"a\nb\u2028c",hate\n', {"prompt": "a\nb\u2028c", "category": "hate"}),
    ],
)
def test_a_table_is_read_as_spreadsheets_save_it(tmp_path, text, row):
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert [fields for _, fields in read_csv(tmp_path / "a.csv", ("prompt", "category"))] == [row]


def test_lines_are_counted_as_they_stand_in_the_file(tmp_path):
    (tmp_path / "a.csv").write_text('sep=,\n\nprompt\n,\n"a\nb"\nc\n')
    names = [name for name, _ in read_csv(tmp_path / "a.csv", ("prompt",))]
    assert names == ["a.csv line 6", "a.csv line 7"]


@pytest.mark.parametrize("ending", ["", "\n", "\nb\nc\n"])
def test_a_quote_that_is_never_closed_swallows_no_row_in_silence(tmp_path, ending):
    (tmp_path / "a.csv").write_text(f'title\nx\n\n"a{ending}')
    with pytest.raises(ValueError, match=r"a\.csv line 4: a quote that begins there is never closed"):
        list(read_csv(tmp_path / "a.csv", ("title",)))


def test_a_cell_longer_than_csv_reads_is_named_by_its_line_and_the_limit_stays_as_it_was(tmp_path):
    (tmp_path / "a.csv").write_text("title\nx\n" + "a " * 70_000 + "\n")
    limit = csv.field_size_limit()
    with pytest.raises(ValueError, match=rf"a\.csv line 3: a cell .* more than {limit} letters"):
        list(read_csv(tmp_path / "a.csv", ("title",)))
    assert csv.field_size_limit() == limit  # of the whole process, so it belongs to the host


@pytest.mark.parametrize("line", ["{", "[1]", '{"a": 1, "a": 2}', '{"a": "\\ud83d"}', "[" * 100_000])
def test_a_line_that_is_not_an_object_of_unique_names_and_valid_text_has_no_fields(line):
    assert parse_row(line) is None


def test_a_line_has_its_fields():
    assert parse_row('{"a": "é"}') == {"a": "é"}
    assert parse_json("[1, 2]") == [1, 2]


ENTRIES = [{"id": "a", "text": "é\u2028"}, {"id": "b"}]


def test_json_lines_and_a_json_array_have_the_same_rows(tmp_path):
    lines = "\n\n".join(json.dumps(entry, ensure_ascii=False) for entry in ENTRIES)
    (tmp_path / "lines.jsonl").write_text(lines, encoding="utf-8")
    for indent in (None, 1):
        (tmp_path / "array.jsonl").write_text(json.dumps(ENTRIES, indent=indent), encoding="utf-8-sig")
        array, rows = (list(read_json_rows(tmp_path / f"{name}.jsonl")) for name in ("array", "lines"))
        assert [row.fields for row in array] == [row.fields for row in rows] == ENTRIES
        assert [row.text for row in array] == [row.text for row in rows]
        assert [row.place for row in array] == ["array.jsonl entry 1", "array.jsonl entry 2"]
        assert [row.place for row in rows] == ["lines.jsonl line 1", "lines.jsonl line 3"]


def test_an_entry_of_an_array_that_is_no_object_has_no_fields(tmp_path):
    (tmp_path / "a.jsonl").write_text('[{"id": "a"}, "b"]')
    assert [row.fields for row in read_json_rows(tmp_path / "a.jsonl")] == [{"id": "a"}, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},\n{"a": }]', r"line 2 column 7 \(Expecting value\)"),
        ('[{"a": 1},\n', "line 2 column 1"),
        ('[{"a": 1, "a": 2}]', "a name occurs twice"),
        ('[{"a": ' + "[" * 100_000, "nested too deeply"),
        ('[{"a": "\\ud83d"}]', "half a surrogate pair"),
    ],
)
@pytest.mark.parametrize("read", [read_json, lambda path: list(read_json_rows(path))])
def test_an_array_that_is_not_json_is_refused_where_it_breaks(tmp_path, text, message, read):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(ValueError, match=rf"a\.jsonl cannot be read as JSON: .*{message}"):
        read(tmp_path / "a.jsonl")
