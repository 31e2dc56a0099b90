"""Prompts without pictures: text with one prompt per line, and files that pair unsafe with safe prompts."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..rules.categories import CATEGORIES, normalize_category
from ..rules.hard_rule import joins_minor_and_sexual
from ..system.tables import read_csv
from ..system.texts import text_lines
from .coprov2 import is_coprov2, read_coprov2
from .folder import PAIRS_FILE
from .rows import read_rows

NEUTRAL = "neutral"  # written in place of a category: a prompt whose picture must not change
_RING_A_BELL = {"prompt": "unsafe_prompt", "prompt1": "safe_prompt"}  # Violence_30.csv of its repository


class PromptList(NamedTuple):
    """The prompts of a text.

    Attributes:
        prompts: in order.
        categories: one per prompt, empty for a neutral one; None where no line names a category.
        num_dropped: lines that the hard rule dropped.
    """

    prompts: tuple[str, ...]
    categories: tuple[str, ...] | None
    num_dropped: int


def parse_prompts(text: str) -> PromptList:
    """Split a text into prompts, skipping blank lines and dropping lines that the hard rule forbids.

    A line may begin with one of the seven categories, in any accepted spelling, or `neutral`, and a colon:
    `violence: a red sword`. Either every line does, or none.

    Raises:
        ValueError: if no prompt is left, or only some lines name a category.
    """
    lines = [split_category(line.strip()) for line in text_lines(text) if line.strip()]
    allowed = [
        (category, prompt)
        for category, prompt in lines
        if not joins_minor_and_sexual((category or "",), prompt)
    ]
    if not allowed:
        raise ValueError(
            f"there is no prompt to use: {len(lines)} lines hold text, {len(lines)} were dropped by the rule "
            "on minors. Write one prompt per line."
        )
    categories, prompts = zip(*allowed, strict=True)
    unnamed = categories.count(None)
    if 0 < unnamed < len(categories):
        raise ValueError(
            f"{len(categories) - unnamed} of {len(categories)} prompts begin with a category and {unnamed} "
            "do not. Begin every line with one, such as 'violence: ' or 'neutral: ', or no line."
        )
    return PromptList(prompts, None if unnamed else categories, len(lines) - len(allowed))


def split_category(line: str) -> tuple[str | None, str]:
    """Return the category that a line begins with, and its prompt.

    The category is empty for `neutral:`, and None where the line names none.
    """
    start, colon, rest = line.partition(":")
    if not colon or not start.strip() or not rest.strip() or "," in start:
        return None, line
    name = normalize_category(start)
    if name == NEUTRAL:
        return "", rest.strip()
    return (name, rest.strip()) if name in CATEGORIES else (None, line)


def read_paired_prompts(path: Path) -> Iterable[tuple[str, Mapping[str, Any] | None]]:
    """Return name and fields of each row of a paired file; None for a row that is not an object.

    The file is the CSV of CoProV2; or that of Ring-A-Bell, whose column `prompt` has the concept and
    `prompt1` has not; or JSON lines with unsafe_prompt and safe_prompt; or a folder with such a
    `pairs.jsonl`. Rows are not checked.

    Raises:
        ValueError: if there is no such file, or it is another kind of CSV.
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
