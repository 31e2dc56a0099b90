"""Rows of any source become preference pairs: text, category, images and repetitions are checked in turn.

`collect_pairs` hands each row to a `_Collector`. Its method `_pair` reads top to bottom what a row must pass;
the first check that fails names the reason in the report.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..rules.categories import normalize_category
from ..system.paths import FolderFiles, OutsideError
from ..system.picture_kinds import DAMAGED, TOO_LARGE, UnreadableImageError
from ..system.pictures import image_facts
from .pair import NeutralSample, PreferencePair, SafetyPairs
from .report import (
    CONTRADICTORY,
    DUPLICATE,
    DUPLICATE_ID,
    LINKED_OUT,
    MISSING,
    OUTSIDE,
    RESPELLED,
    SAME_IMAGE,
    SAME_UNSAFE_PROMPT,
    TEST_PROMPT,
    UNREADABLE,
    PairsReport,
)
from .rows import (
    RowDroppedError,
    prompt_key,
    read_categories,
    read_cost_gap,
    read_judged_right,
    read_quality_gap,
    read_safety_gap,
    read_text,
)

NamedRow = tuple[str, Mapping[str, Any] | None]  # name for the report, fields; None where malformed


@dataclass(frozen=True)
class SourceRows:
    """The rows of a source, before any image is opened.

    Args:
        source: the folder or file that was read.
        name: what holds the rows, for messages.
        root: resolved folder that holds every image.
        rows: name and fields (id, category, unsafe_prompt, safe_prompt, unsafe_image, safe_image) of each
            pair; None for fields that could not be parsed.
        neutral: name and fields (id, prompt, image) of each neutral row.
        report: the rows that the reader itself dropped, and its counts.
        test_prompts: `prompt_key` of prompts kept for tests; pairs with such an unsafe prompt are dropped.
        unique_unsafe_prompts: drop pairs whose unsafe prompt occurred before, whatever their images.
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
    source: SourceRows,
    *,
    category: str | None = None,
    max_pairs: int = 0,
    decode: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> SafetyPairs:
    """Check every row and image of a source. Of rows that contradict or repeat each other the first is kept.

    Args:
        source: the rows.
        category: keep the pairs that carry it, in any spelling; None keeps all.
        max_pairs: keep the first so many; 0 keeps all.
        decode: also decode every image, some milliseconds each; without it the header, the size and the end
            of each file are checked, see `image_facts`.
        on_progress: called with (done, total) after each row; whatever it raises stops the reading.

    Raises:
        ValueError: if no pair can be used; it lists the reasons and what to do.
    """
    if max_pairs < 0:
        raise ValueError(f"max_pairs must be 0 (all) or more, got {max_pairs}.")
    collector = _Collector(source, normalize_category(category) if category else None, decode)
    progress, total = on_progress or (lambda done, total: None), len(source.rows) + len(source.neutral)
    for number, (name, fields) in enumerate(source.rows, start=1):
        if max_pairs and len(collector.pairs) == max_pairs:
            collector.beyond_limit += 1
        else:
            collector.add_pair(name, fields)
        progress(number, total)
    for number, (name, fields) in enumerate(source.neutral, start=1 + len(source.rows)):
        collector.add_neutral(f"neutral {name}", fields)
        progress(number, total)
    report = collector.report()
    if not collector.pairs:
        raise ValueError(_nothing_left(source.name, report, category, sorted(collector.categories)))
    return SafetyPairs(source.source, tuple(collector.pairs), tuple(collector.neutral), report)


class _Collector:
    """The samples kept so far, and what later rows must not repeat or contradict."""

    def __init__(self, source: SourceRows, category: str | None, decode: bool) -> None:
        self.pairs: list[PreferencePair] = []
        self.neutral: list[NeutralSample] = []
        self.categories: set[str] = set()  # of every readable row, also of those not selected
        self.beyond_limit = 0
        self._source, self._category, self._decode = source, category, decode
        self._dropped = {reason: [*names] for reason, names in source.report.dropped.items()}
        self._details: dict[str, str] = {}
        self._noted = {remark: [*names] for remark, names in source.report.noted.items()}
        self._files = FolderFiles(source.root)
        self._other_categories = 0
        self._unsafe_prompts: set[str] = set()
        self._pair_ids, self._neutral_ids = set[str](), set[str]()
        self._contents: set[tuple[str | bytes, ...]] = set()  # prompts and image hashes of whole rows
        self._safe_images, self._unsafe_images = set[bytes](), set[bytes]()

    def add_pair(self, name: str, fields: Mapping[str, Any] | None) -> None:
        """Keep a row as a pair, pass over another category, or record why the row is dropped."""
        with self._dropping(name):
            pair = self._pair(fields)
            if pair is None:
                self._other_categories += 1
            else:
                self.pairs.append(pair)

    def add_neutral(self, name: str, fields: Mapping[str, Any] | None) -> None:
        """Keep a row as a neutral sample, or record why it is dropped."""
        with self._dropping(name):
            self.neutral.append(self._neutral_sample(fields))

    def report(self) -> PairsReport:
        """Return the report of the source, completed with what became of its rows."""
        return dataclasses.replace(
            self._source.report,
            kept=len(self.pairs),
            dropped=self._dropped,
            neutral=len(self.neutral),
            other_categories=self._other_categories,
            beyond_limit=self.beyond_limit,
            noted=self._noted,
            details=self._details,
        )

    @contextmanager
    def _dropping(self, name: str) -> Iterator[None]:
        try:
            yield
        except RowDroppedError as error:
            self._dropped.setdefault(error.reason, []).append(name)
            if error.detail:
                self._details[name] = error.detail

    def _pair(self, fields: Mapping[str, Any] | None) -> PreferencePair | None:
        """Return the pair of a row; None where it is not of the category asked for."""
        row = read_text(
            fields, prompts=("unsafe_prompt", "safe_prompt"), images=("unsafe_image", "safe_image")
        )
        categories = read_categories(fields)
        self.categories.update(categories)
        if self._category and self._category not in categories:
            return None
        unsafe_prompt = prompt_key(row["unsafe_prompt"])
        if unsafe_prompt in self._source.test_prompts:
            raise RowDroppedError(TEST_PROMPT)
        if self._source.unique_unsafe_prompts and unsafe_prompt in self._unsafe_prompts:
            raise RowDroppedError(SAME_UNSAFE_PROMPT)
        loser, winner = (self._image(row[name], row["id"]) for name in ("unsafe_image", "safe_image"))
        unsafe_hash, safe_hash = self._hash(loser, row["id"]), self._hash(winner, row["id"])
        if unsafe_hash == safe_hash:
            raise RowDroppedError(SAME_IMAGE)
        content = (row["unsafe_prompt"], row["safe_prompt"], unsafe_hash, safe_hash)
        self._refuse_repetition(row["id"], self._pair_ids, content)
        if safe_hash in self._unsafe_images or unsafe_hash in self._safe_images:
            raise RowDroppedError(CONTRADICTORY)
        self._pair_ids.add(row["id"])
        self._contents.add(content)
        self._safe_images.add(safe_hash)
        self._unsafe_images.add(unsafe_hash)
        self._unsafe_prompts.add(unsafe_prompt)
        return PreferencePair(
            id=row["id"],
            categories=categories,
            unsafe_prompt=row["unsafe_prompt"],
            safe_prompt=row["safe_prompt"],
            winner=winner,
            loser=loser,
            safety_gap=read_safety_gap(fields),
            judged_right=read_judged_right(fields),
            cost_gap=read_cost_gap(fields),
            quality_gap=read_quality_gap(fields),
        )

    def _neutral_sample(self, fields: Mapping[str, Any] | None) -> NeutralSample:
        row = read_text(fields, prompts=("prompt",), images=("image",))
        image = self._image(row["image"], row["id"])
        image_hash = self._hash(image, row["id"])
        content = (row["prompt"], image_hash)
        self._refuse_repetition(row["id"], self._neutral_ids, content)
        if image_hash in self._unsafe_images:
            raise RowDroppedError(CONTRADICTORY)
        self._neutral_ids.add(row["id"])
        self._contents.add(content)
        return NeutralSample(row["id"], row["prompt"], image)

    def _image(self, written: str, row_id: str) -> Path:
        """Return the image file of a path; it is inside the root and present."""
        try:
            path, is_respelled = self._files.find(written)
        except OutsideError as error:
            raise RowDroppedError(LINKED_OUT if error.is_link else OUTSIDE, str(error)) from error
        except FileNotFoundError as error:
            raise RowDroppedError(MISSING, str(error)) from error
        if is_respelled:
            self._note(RESPELLED, row_id)
        return path

    def _hash(self, file: Path, row_id: str) -> bytes:
        """Return the hash of an image file; it is readable."""
        try:
            facts = image_facts(file, decode=self._decode)
        except UnreadableImageError as error:
            is_named = error.kind not in (DAMAGED, TOO_LARGE)
            reason = f"{UNREADABLE}: it is {error.kind}" if is_named else UNREADABLE
            raise RowDroppedError(reason, f"{file.name} ({error.reason})") from error
        for remark in facts.remarks:
            self._note(remark, row_id)
        return facts.digest

    def _note(self, remark: str, row_id: str) -> None:
        names = self._noted.setdefault(remark, [])
        if row_id not in names[-1:]:  # once for both images
            names.append(row_id)

    def _refuse_repetition(self, row_id: str, ids: set[str], content: tuple[str | bytes, ...]) -> None:
        if row_id in ids:
            raise RowDroppedError(DUPLICATE_ID)
        if content in self._contents:
            raise RowDroppedError(DUPLICATE)


def _nothing_left(name: str, report: PairsReport, category: str | None, present: list[str]) -> str:
    if report.other_categories:
        return (
            f"no usable pair in {name} is of the category {category!r}; its pairs are of: "
            f"{', '.join(present)}. Choose one of these.\n{report.text()}"
        )
    if not report.dropped:
        return f"{name} has no rows. Write one object per line, or choose another source."
    return f"no row of {name} can be used. Correct the rows listed here.\n{report.text()}"
