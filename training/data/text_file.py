"""Text files that people write: whatever is wrong with one, its name is told."""

from pathlib import Path


def read_text_file(path: Path) -> str:
    """Return the text of a file, without a byte order mark.

    Raises:
        ValueError: naming the file, if there is none or it is not UTF-8.
    """
    if not path.is_file():
        raise ValueError(f"{path.name} does not exist in {path.parent}, or is no file. Name a text file.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name} is not text in UTF-8. Save it as UTF-8.") from error
