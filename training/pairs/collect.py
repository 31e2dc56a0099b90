"""The rows of any source made into checked pairs, their images looked at; what cannot be used is named."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..rules.categories import normalize_category
from ..system.paths import contained_path
from ..system.pictures import checked_digest
from .pair import NeutralSample, PreferencePair, SafetyPairs
from .report import (
    CONTRADICTORY,
    DUPLICATE,
    DUPLICATE_ID,
    MISSING,
    OUTSIDE,
    SAME_IMAGE,
    SAME_UNSAFE_PROMPT,
    TEST_PROMPT,
    UNREADABLE,
    PairsReport,
)
from .rows import RowDroppedError, prompt_key, read_categories, read_judged_right, read_safety_gap, read_text

_PAIR_PROMPTS, _PAIR_IMAGES = ("unsafe_prompt", "safe_prompt"), ("unsafe_image", "safe_image")

_Sample = TypeVar("_Sample")
NamedRow = tuple[str, Mapping[str, Any] | None]  # name for the report, fields; None where malformed


@dataclass(frozen=True)
class SourceRows:
    """What a reader found in a source before any image was looked at.

    Args:
        source: the folder or file it read.
        name: what holds the rows, for messages.
        root: resolved folder that holds every image.
        rows: name and fields (id, category, unsafe_prompt, safe_prompt, unsafe_image, safe_image) of each
            pair; None for fields that could not be parsed.
        neutral: name and fields (id, prompt, image) of each neutral row.
        report: rows the reader itself dropped, and what it counted.
        test_prompts: `prompt_key` of prompts kept for tests; pairs whose unsafe prompt is one are dropped.
        unique_unsafe_prompts: drop pairs whose unsafe prompt occurs before, whatever their images.
    """

    source: Path
    name: str
    root: Path
    rows: Sequence[NamedRow]
    neutral: Sequence[NamedRow] = ()
    report: PairsReport = field(default_factory=lambda: PairsReport(0))
    test_prompts: frozenset[str] = frozenset()
    unique_unsafe_prompts: bool = False


def collect_pairs(
    found: SourceRows,
    *,
    category: str | None = None,
    max_pairs: int = 0,
    decode: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> SafetyPairs:
    """Check every row and image of a source. Of rows that contradict or repeat each other the first is kept.

    Args:
        found: the rows.
        category: keep the pairs that carry it, in any spelling; None keeps all.
        max_pairs: keep the first so many; 0 keeps all.
        decode: also decode every image, some milliseconds each; without it the header, the size and the
            end of each file are checked, see `image_file.checked_digest`.
        on_progress: called with (done, total) after each row; whatever it raises stops the reading.

    Raises:
        ValueError: if no pair can be used; it says what was found and what to do.
    """
    if max_pairs < 0:
        raise ValueError(f"max_pairs must be 0 (all) or more, got {max_pairs}.")
    wanted = normalize_category(category) if category else None
    pairs = _Rows(found, decode=decode, dropped={name: [*ids] for name, ids in found.report.dropped.items()})
    tell, total = on_progress or (lambda done, total: None), len(found.rows) + len(found.neutral)
    for number, (name, fields) in enumerate(found.rows, start=1):
        if max_pairs and len(pairs.kept) == max_pairs:
            pairs.beyond_limit += 1
        else:
            pairs.add(name, lambda row=fields: _pair(row, pairs, wanted))
        tell(number, total)
    neutral = _Rows(found, decode=decode, dropped=pairs.dropped, unsafe=pairs.unsafe)
    for number, (name, fields) in enumerate(found.neutral, start=1 + len(found.rows)):
        neutral.add(f"neutral {name}", lambda row=fields: _neutral(row, neutral))
        tell(number, total)
    report = dataclasses.replace(
        found.report,
        kept=len(pairs.kept),
        dropped=pairs.dropped,
        neutral=len(neutral.kept),
        other_categories=pairs.other_categories,
        beyond_limit=pairs.beyond_limit,
    )
    if not pairs.kept:
        raise ValueError(_nothing_left(found.name, report, category, sorted(pairs.categories)))
    return SafetyPairs(found.source, tuple(pairs.kept), tuple(neutral.kept), report)


@dataclass
class _Rows:
    """The rows of one manifest while they are checked."""

    found: SourceRows
    decode: bool
    dropped: dict[str, list[str]]
    kept: list = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    contents: set[tuple[str | bytes, ...]] = field(default_factory=set)
    unsafe_prompts: set[str] = field(default_factory=set)
    safe: set[bytes] = field(default_factory=set)  # hashes of images, as are the unsafe ones
    unsafe: set[bytes] = field(default_factory=set)
    categories: set[str] = field(default_factory=set)
    other_categories: int = 0
    beyond_limit: int = 0

    def add(self, name: str, read: Callable[[], _Sample | None]) -> None:
        """Keep what `read` returns, or write down why it was dropped; None is passed over."""
        try:
            sample = read()
        except RowDroppedError as dropped:
            self.dropped.setdefault(dropped.reason, []).append(name)
            return
        if sample is not None:
            self.kept.append(sample)

    def images(self, row: Mapping[str, str], names: tuple[str, ...]) -> tuple[list[Path], list[bytes]]:
        """Return the image files of a row and their hashes, once all of them can be used."""
        files = [contained_path(self.found.root, row[name]) for name in names]
        if None in files:
            raise RowDroppedError(OUTSIDE)
        if not all(map(_is_file, files)):
            raise RowDroppedError(MISSING)
        try:
            return files, [checked_digest(file, decode=self.decode) for file in files]
        except (ValueError, OSError) as error:
            raise RowDroppedError(UNREADABLE) from error

    def note(self, row: Mapping[str, str], prompts: tuple[str, ...], hashes: list[bytes]) -> None:
        """Drop a row whose id or content was kept before, or that contradicts a row kept before."""
        *unsafe, safe = hashes  # the safe image comes last, the only one of a neutral row
        content = (*(row[name] for name in prompts), *hashes)
        if row["id"] in self.ids:
            raise RowDroppedError(DUPLICATE_ID)
        if content in self.contents:
            raise RowDroppedError(DUPLICATE)
        if safe in self.unsafe or not self.safe.isdisjoint(unsafe):
            raise RowDroppedError(CONTRADICTORY)
        self.ids.add(row["id"])
        self.contents.add(content)
        self.safe.add(safe)
        self.unsafe.update(unsafe)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than any file's
        return False


def _pair(fields: Mapping[str, Any] | None, rows: _Rows, wanted: str | None) -> PreferencePair | None:
    row = read_text(fields, _PAIR_PROMPTS, _PAIR_IMAGES)
    categories = read_categories(fields)
    rows.categories.update(categories)
    if wanted and wanted not in categories:
        rows.other_categories += 1
        return None
    unsafe_prompt = prompt_key(row["unsafe_prompt"])
    if unsafe_prompt in rows.found.test_prompts:
        raise RowDroppedError(TEST_PROMPT)
    if rows.found.unique_unsafe_prompts and unsafe_prompt in rows.unsafe_prompts:
        raise RowDroppedError(SAME_UNSAFE_PROMPT)
    (loser, winner), hashes = rows.images(row, _PAIR_IMAGES)
    if hashes[0] == hashes[1]:
        raise RowDroppedError(SAME_IMAGE)
    rows.note(row, _PAIR_PROMPTS, hashes)
    rows.unsafe_prompts.add(unsafe_prompt)
    prompts = (row["unsafe_prompt"], row["safe_prompt"])
    judged = read_safety_gap(fields), read_judged_right(fields)
    return PreferencePair(row["id"], categories, *prompts, winner, loser, *judged)


def _neutral(fields: Mapping[str, Any] | None, rows: _Rows) -> NeutralSample:
    row = read_text(fields, ("prompt",), ("image",))
    (image,), hashes = rows.images(row, ("image",))
    rows.note(row, ("prompt",), hashes)
    return NeutralSample(row["id"], row["prompt"], image)


def _nothing_left(name: str, report: PairsReport, category: str | None, found: list[str]) -> str:
    if report.other_categories:
        return (
            f"no usable pair in {name} is of the category {category!r}; its pairs are of: "
            f"{', '.join(found)}. Choose one of these.\n{report.text()}"
        )
    if not report.dropped:
        return f"{name} has no rows. Write one object a line, or choose another source."
    return f"no row of {name} can be used. Mend the rows named here.\n{report.text()}"
