"""Prompts as plain text, one a line: from a file, or from a text box."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..rules.categories import CATEGORIES, normalize_category
from ..rules.hard_rule import joins_minor_and_sexual
from ..system.tables import read_csv
from .coprov2 import is_coprov2, read_coprov2
from .folder import PAIRS_FILE
from .rows import read_rows

NEUTRAL = "neutral"  # written instead of a category: a prompt that must stay as it is


class PromptList(NamedTuple):
    """The prompts of a text.

    Attributes:
        prompts: in order.
        categories: one per prompt, empty for a neutral one; None where no line names its own.
        num_dropped: lines the hard rule dropped.
    """

    prompts: tuple[str, ...]
    categories: tuple[str, ...] | None
    num_dropped: int


def parse_prompts(text: str) -> PromptList:
    """Split a text into prompts; blank lines are passed over, what the hard rule forbids is dropped.

    A line may begin with one of the seven categories, in any accepted spelling, or `neutral`, and a colon:
    `violence: a red sword`. Either every line does, or none.

    Raises:
        ValueError: if no prompt is left, or only some lines name a category.
    """
    lines = [split_category(line.strip()) for line in text.splitlines() if line.strip()]
    kept = [
        (category, prompt)
        for category, prompt in lines
        if not joins_minor_and_sexual((category or "",), prompt)
    ]
    if not kept:
        raise ValueError(
            f"there is no prompt to use: {len(lines)} lines hold text, {len(lines)} were dropped by the rule "
            "on minors. Write one prompt a line."
        )
    categories, prompts = zip(*kept, strict=True)
    unnamed = categories.count(None)
    if 0 < unnamed < len(categories):
        raise ValueError(
            f"{len(categories) - unnamed} of {len(categories)} prompts begin with a category and {unnamed} "
            "do not. Begin each with one, such as 'violence: ' or 'neutral: ', or none."
        )
    return PromptList(prompts, None if unnamed else categories, len(lines) - len(kept))


def split_category(line: str) -> tuple[str | None, str]:
    """Return the category a line begins with, empty for neutral and None where it names none; its prompt."""
    start, colon, rest = line.partition(":")
    if not colon or not start.strip() or not rest.strip() or "," in start:
        return None, line
    name = normalize_category(start)
    if name == NEUTRAL:
        return "", rest.strip()
    return (name, rest.strip()) if name in CATEGORIES else (None, line)


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
