"""Text is read as people save it, or refused with the encoding and the line that are wrong."""

import codecs

import pytest

from training.system.texts import read_text_file, start_of, text_lines

TEXT = "a,é\r\nb,\U0001f600\n"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        codecs.BOM_UTF8 + TEXT.encode("utf-8-sig"),  # two files joined, or saved twice
        TEXT.encode("utf-16"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        codecs.BOM_UTF32_BE + TEXT.encode("utf-32-be"),
    ],
)
def test_a_file_in_any_form_of_unicode_is_the_same_text(tmp_path, data):
    (tmp_path / "a.txt").write_bytes(data)
    assert read_text_file(tmp_path / "a.txt") == start_of(tmp_path / "a.txt") == TEXT


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a\ncafé\n".encode("latin-1"), "is not text in UTF-8: line 2 has the byte 0xE9, as in .* Latin-1"),
        ("a\r\rcafé".encode("cp1252"), "line 3 has the byte 0xE9"),
        ("a\n日本".encode("shift-jis"), "line 2 has the byte 0x93"),
        ("é".encode()[:1], "line 1 has the byte 0xC3"),  # cut off
        ("a\nb".encode("utf-16")[:-1], "begins as text in UTF-16.*, but line 2 is damaged or cut off"),
        ("a\n\ud83d".encode("utf-16-le", "surrogatepass"), "UTF-16-LE, but line 2 is damaged"),
        (b"ab\nc\0", "is not text: line 2 contains a NUL"),
        (b"PK\x03\x04...", "is a workbook or another zip archive"),
    ],
)
def test_a_file_that_is_not_unicode_is_refused_with_the_line_and_the_cause(tmp_path, data, message):
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(ValueError, match=rf"a\.csv .*{message}"):
        read_text_file(tmp_path / "a.csv")


def test_a_file_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.txt does not exist"):
        read_text_file(tmp_path / "gone.txt")
    with pytest.raises(ValueError, match="is not a file"):
        read_text_file(tmp_path)
    assert start_of(tmp_path / "gone.txt") == start_of(tmp_path) == ""


def test_a_line_ends_with_cr_lf_or_both_and_with_nothing_else():
    inner = "a\u2028b\u2029c\x0bd\x0ce\x85f\x1cg"
    assert text_lines(f"{inner}\r\nb\rc\n\n\ufeffd") == [inner, "b", "c", "", "d"]
    assert text_lines("a\r\nb\rc", keep_ends=True) == ["a\r\n", "b\r", "c"]
    assert text_lines("") == []
