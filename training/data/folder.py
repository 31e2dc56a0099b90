"""A folder of preference pairs: `pairs.jsonl`, perhaps `neutral.jsonl`, and the images they name."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ..preference import PreferencePair
from ..taxonomy import normalize_category
from .contained_path import contained_path
from .image_file import read_rgb
from .manifest import RowDroppedError, read_categories, read_rows, read_text
from .pairs_report import (
    CONTRADICTORY,
    DUPLICATE,
    DUPLICATE_ID,
    MISSING,
    OUTSIDE,
    SAME_IMAGE,
    UNREADABLE,
    PairsReport,
)

PAIRS_FILE, NEUTRAL_FILE = "pairs.jsonl", "neutral.jsonl"
_PAIR_PROMPTS, _PAIR_IMAGES = ("unsafe_prompt", "safe_prompt"), ("unsafe_image", "safe_image")

_Sample = TypeVar("_Sample")


@dataclass(frozen=True)
class NeutralSample:
    """A prompt and its image that training must leave as they are.

    Args:
        id: unique within its source.
        prompt: made the image, or describes it.
        image: file of the image.
    """

    id: str
    prompt: str
    image: Path


@dataclass(frozen=True)
class SafetyPairs:
    """Checked pairs of one source, without pixels.

    Args:
        source: folder they come from.
        pairs: in the order of the manifest.
        neutral: likewise; may be empty.
        report: what became of each row.
    """

    source: Path
    pairs: tuple[PreferencePair, ...]
    neutral: tuple[NeutralSample, ...]
    report: PairsReport

    @property
    def categories(self) -> tuple[str, ...]:
        """All categories of the pairs, each once, in the order they occur."""
        return tuple(dict.fromkeys(name for pair in self.pairs for name in pair.categories))

    @property
    def prompts(self) -> tuple[str, ...]:
        """All prompts, each once: those of the pairs, then the neutral ones."""
        of_pairs = [text for pair in self.pairs for text in (pair.unsafe_prompt, pair.safe_prompt)]
        return tuple(dict.fromkeys([*of_pairs, *(sample.prompt for sample in self.neutral)]))

    @cached_property
    def content_hash(self) -> str:
        """Name of the content: sha256 over prompts and image bytes in order, 64 hexadecimal digits.

        Moving the folder or renaming files and ids changes nothing; a changed image does.
        """
        digest = hashlib.sha256()
        for pair in self.pairs:
            for part in (pair.unsafe_prompt.encode(), pair.safe_prompt.encode()):
                digest.update(hashlib.sha256(part).digest())
            digest.update(_file_hash(pair.loser) + _file_hash(pair.winner))
        digest.update(b"neutral")
        for sample in self.neutral:
            digest.update(hashlib.sha256(sample.prompt.encode()).digest() + _file_hash(sample.image))
        return digest.hexdigest()


def load_pairs(folder: Path, *, category: str | None = None, max_pairs: int = 0) -> SafetyPairs:
    """Read and check a folder of pairs; what cannot be used is dropped, counted and named in the report.

    One line of `pairs.jsonl` is one object: id, category (a name or a list), unsafe_prompt, safe_prompt,
    unsafe_image, safe_image (paths inside the folder); further fields are ignored. One line of
    `neutral.jsonl` has id, prompt, image. Every image is decoded once. Of rows that contradict or repeat
    each other the first is kept.

    Args:
        folder: the folder.
        category: keep the pairs that carry it, in any spelling; None keeps all.
        max_pairs: keep the first so many; 0 keeps all.

    Raises:
        ValueError: if the folder or its manifest is missing, or no pair can be used; it says what was
            found and what to do.
    """
    if max_pairs < 0:
        raise ValueError(f"max_pairs must be 0 (all) or more, got {max_pairs}.")
    wanted = normalize_category(category) if category else None
    root = _checked_folder(folder)
    pairs = _Rows(root)
    for name, fields in read_rows(root / PAIRS_FILE):
        if max_pairs and len(pairs.kept) == max_pairs:
            pairs.beyond_limit += 1
        else:
            pairs.add(name, lambda row=fields: _pair(row, pairs, wanted))
    neutral = _Rows(root, dropped=pairs.dropped, unsafe=pairs.unsafe)
    for name, fields in read_rows(root / NEUTRAL_FILE) if (root / NEUTRAL_FILE).is_file() else ():
        neutral.add(f"neutral {name}", lambda row=fields: _neutral(row, neutral))
    report = PairsReport(
        len(pairs.kept), pairs.dropped, len(neutral.kept), pairs.other_categories, pairs.beyond_limit
    )
    if not pairs.kept:
        raise ValueError(_nothing_left(root, report, category, sorted(pairs.categories)))
    return SafetyPairs(root, tuple(pairs.kept), tuple(neutral.kept), report)


@dataclass
class _Rows:
    """The rows of one manifest while it is read."""

    root: Path
    dropped: dict[str, list[str]] = field(default_factory=dict)
    kept: list = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    contents: set[tuple[str, ...]] = field(default_factory=set)
    safe: set[str] = field(default_factory=set)  # hashes of images, as are the unsafe ones
    unsafe: set[str] = field(default_factory=set)
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

    def images(self, row: Mapping[str, str], names: tuple[str, ...]) -> tuple[list[Path], list[str]]:
        """Return the image files of a row and their hashes, once all of them can be used."""
        files = [contained_path(self.root, row[name]) for name in names]
        if None in files:
            raise RowDroppedError(OUTSIDE)
        if not all(file.is_file() for file in files):
            raise RowDroppedError(MISSING)
        try:
            for file in files:
                read_rgb(file)
            return files, [_file_hash(file).hex() for file in files]
        except (ValueError, OSError) as error:
            raise RowDroppedError(UNREADABLE) from error

    def note(self, row: Mapping[str, str], prompts: tuple[str, ...], hashes: list[str]) -> None:
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


def _pair(fields: Mapping[str, Any] | None, rows: _Rows, wanted: str | None) -> PreferencePair | None:
    row = read_text(fields, _PAIR_PROMPTS, _PAIR_IMAGES)
    categories = read_categories(fields)
    rows.categories.update(categories)
    if wanted and wanted not in categories:
        rows.other_categories += 1
        return None
    (loser, winner), hashes = rows.images(row, _PAIR_IMAGES)
    if len(set(hashes)) < len(hashes):
        raise RowDroppedError(SAME_IMAGE)
    rows.note(row, _PAIR_PROMPTS, hashes)
    return PreferencePair(row["id"], categories, row["unsafe_prompt"], row["safe_prompt"], winner, loser)


def _neutral(fields: Mapping[str, Any] | None, rows: _Rows) -> NeutralSample:
    row = read_text(fields, ("prompt",), ("image",))
    (image,), hashes = rows.images(row, ("image",))
    rows.note(row, ("prompt",), hashes)
    return NeutralSample(row["id"], row["prompt"], image)


def _checked_folder(folder: Path) -> Path:
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise ValueError(f"the pairs folder {folder} {what}. Name a folder that holds {PAIRS_FILE}.")
    root = folder.resolve()
    if not (root / PAIRS_FILE).is_file():
        found = sorted(entry.name for entry in root.iterdir())
        listing = f"{len(found)} other entries, such as {found[0]}" if found else "nothing"
        raise ValueError(
            f"the pairs folder {folder.name} has no {PAIRS_FILE}; it holds {listing}. Write {PAIRS_FILE} "
            "with one object a line: id, category, unsafe_prompt, safe_prompt, unsafe_image, safe_image."
        )
    return root


def _nothing_left(root: Path, report: PairsReport, category: str | None, found: list[str]) -> str:
    if report.other_categories:
        return (
            f"no usable pair in {root.name} is of the category {category!r}; its pairs are of: "
            f"{', '.join(found)}. Choose one of these.\n{report.text()}"
        )
    if not report.dropped:
        return f"{PAIRS_FILE} in {root.name} has no rows. Write one object a line, or choose another folder."
    return f"no row of {PAIRS_FILE} in {root.name} can be used. Mend the rows named here.\n{report.text()}"


def _file_hash(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()
