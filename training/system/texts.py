"""Text files as people save them: here alone it is decided how bytes become text, and where a line ends.

UTF-8 and UTF-16 are read, with or without a byte order mark. Other encodings cannot be told apart by their
bytes, so they are refused: a guess would change letters in silence. A line ends only with CR, LF or both,
because U+2028, a vertical tab and other characters at which Python splits lines occur inside prompts.
"""

import codecs
import re
from pathlib import Path

START_BYTES = 4096  # enough of a file to recognise its layout
MARK = "\ufeff"  # byte order mark; files joined end to end have one inside
_MARKS = (  # that of UTF-32 begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ZIP = b"PK\x03\x04"  # also the start of .xlsx and .ods
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def read_text_file(path: Path) -> str:
    """Return the text of a file, without byte order marks at its start.

    Raises:
        ValueError: if the file is missing, or is not text in UTF-8 or UTF-16; it names the line.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} does not exist in {path.parent}, or is not a file. Name a text file.")
    data = path.read_bytes()
    if data.startswith(_ZIP):
        raise ValueError(
            f"{path.name} is a workbook or another zip archive, not text. Export it as text in UTF-8."
        )
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(_not_text(path.name, data, error)) from error
    if "\0" in text:
        line = len(text_lines(text[: text.index("\0") + 1]))
        raise ValueError(f"{path.name} is not text: line {line} contains a NUL. Save it as UTF-8.")
    return text.lstrip(MARK)


def start_of(path: Path) -> str:
    """Return the beginning of a text file, or nothing if it cannot be read; what is not text is replaced."""
    try:
        with open(path, "rb") as file:
            data = file.read(START_BYTES)
    except OSError:
        return ""
    return data.decode(_encoding(data), errors="replace").lstrip(MARK)


def text_lines(text: str, *, keep_ends: bool = False) -> list[str]:
    """Split a text into lines, each without a byte order mark at its start.

    Args:
        text: the text.
        keep_ends: leave the line ends at the lines.
    """
    lines = (line.removeprefix(MARK) for line in _LINE.findall(text))
    return list(lines) if keep_ends else [line.rstrip("\r\n") for line in lines]


def _encoding(data: bytes) -> str:
    """Return the encoding that the first bytes tell: by a mark, or by the zero bytes of UTF-16."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    zeros = [byte == 0 for byte in data[:2]]  # the first character of a table or of JSON is ASCII
    return {(False, True): "utf-16-le", (True, False): "utf-16-be"}.get(tuple(zeros), "utf-8")


def _not_text(name: str, data: bytes, error: UnicodeDecodeError) -> str:
    before = data[: error.start].decode(error.encoding, errors="ignore")
    line = len(text_lines(f"{before}."))
    if error.encoding != "utf-8":
        return (
            f"{name} begins as text in {error.encoding.upper()}, but line {line} is damaged or cut off. Save "
            "it as UTF-8."
        )
    return (
        f"{name} is not text in UTF-8: line {line} has the byte 0x{data[error.start]:02X}, as in text saved "
        "as Latin-1 or Windows-1252. Open it in the program that saved it, and save it as UTF-8."
    )
