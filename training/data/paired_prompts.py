"""Files of unsafe prompts with their safe halves, whoever wrote them; no image is needed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .coprov2 import is_coprov2, read_coprov2
from .folder import PAIRS_FILE
from .manifest import read_rows


def read_paired_prompts(path: Path) -> Iterable[tuple[str, Mapping[str, Any] | None]]:
    """Return the rows of a paired file as a manifest's: name and fields, None for a row that is no object.

    The file is CoProV2's CSV, JSON lines with unsafe_prompt and safe_prompt, or a folder that holds such a
    `pairs.jsonl`. Rows are not checked.

    Raises:
        ValueError: if there is no such file.
    """
    file = path / PAIRS_FILE if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{file.name} does not exist in {file.parent}. Name a file of paired prompts.")
    return read_coprov2(file, images=file.parent).rows if is_coprov2(file) else read_rows(file)
