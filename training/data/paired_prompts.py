"""Files of unsafe prompts with their safe halves, whoever wrote them; no image is needed."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..system.tables import read_csv
from .coprov2 import is_coprov2, read_coprov2
from .folder import PAIRS_FILE
from .manifest import read_rows

_RING_A_BELL = {"prompt": "unsafe_prompt", "prompt1": "safe_prompt"}  # Violence_30.csv of its repository


def read_paired_prompts(path: Path) -> Iterable[tuple[str, Mapping[str, Any] | None]]:
    """Return the rows of a paired file as a manifest's: name and fields, None for a row that is no object.

    The file is CoProV2's CSV, Ring-A-Bell's, whose column `prompt` has the concept and `prompt1` has not,
    JSON lines with unsafe_prompt and safe_prompt, or a folder that holds such a `pairs.jsonl`. Rows are not
    checked.

    Raises:
        ValueError: if there is no such file, or a CSV that is neither.
    """
    file = path / PAIRS_FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{file.name} does not exist in {file.parent}. Name a file of paired prompts.")
    if is_coprov2(file):
        return read_coprov2(file, images=file.parent).rows
    return _read_ring_a_bell(file) if file.suffix.lower() == ".csv" else read_rows(file)


def _read_ring_a_bell(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for name, cells in read_csv(file, tuple(_RING_A_BELL)):
        yield name, {_RING_A_BELL.get(column, column): cell for column, cell in cells.items()}
