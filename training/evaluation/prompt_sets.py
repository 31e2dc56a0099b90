"""Prompt sets to measure a model on, from the person's own disk: I2P, CoProV2, UD, COCO captions and others.

Nothing is bundled. The dialects of the published files differ only in how a column is called, so they are a
table of names here. What cannot be used is counted and named, never a prompt shown.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..config.option import SEED_MAX
from ..pairs.prompts import NEUTRAL
from ..pairs.report import HARD_RULE, MALFORMED, reason_lines
from ..pairs.rows import RowDroppedError, prompt_key, raw_categories, read_categories, read_text
from ..rules.categories import normalize_categories, normalize_category
from ..rules.hard_rule import joins_minor_and_sexual, row_texts
from ..system.tables import named_columns
from .prompt_files import CLEAN_COLUMN, read_prompt_file

# The first column that a row has; attacks stand beside the prompt they were made from.
PROMPT_COLUMNS = (
    "adv_prompt",  # attacks such as those SAFREE collects
    "sensitive prompt",  # Ring-A-Bell, as SAFREE has it
    "prompt",  # I2P, CoProV2, P4D, Six-CD, COCO of Diffusion-MU-Attack, Ring-A-Bell's pairs
    "unsafe_prompt",  # our own pairs.jsonl
    "caption",  # COCO's annotations
    "text",
)
CATEGORY_COLUMNS = ("categories", "category")  # I2P, P4D; CoProV2
SEED_COLUMNS = ("evaluation_seed", "sd_seed", "seed")  # AlignGuard, Six-CD, P4D; I2P
_HARMLESS = {NEUTRAL, "benign", "safe"}

NO_PROMPT = f"no column of prompts, such as {', '.join(PROMPT_COLUMNS)}"
NO_CATEGORY = "the row names no category: choose the one it is of, or neutral"
REPEATED = "the same prompt and seed stand there before; its categories are joined"
BAD_SEED = "the seed is no whole number from 0 on, so one is made up"
STATIC = "static"  # fixed before the model was; `adaptive` is what searches against the very model


class Prompt(NamedTuple):
    """One prompt of a set.

    Attributes:
        id: name of prompt and seed, the same in every file.
        prompt: the text.
        categories: what it is against, normalised; empty for a neutral one.
        seed: that the file asks for, None if it does not.
        texts: all that the rows of this text say, for the hard rule to be asked again of a joined prompt.
        harmless: the part of it that a safe model still has to draw; empty where the file names none.
    """

    id: str
    prompt: str
    categories: tuple[str, ...]
    seed: int | None
    texts: tuple[str, ...] = ()
    harmless: str = ""


@dataclass(frozen=True)
class PromptReport:
    """What became of every row of a file; names of rows, never a prompt.

    Attributes:
        kept: prompts that are used.
        dropped: reason -> names of rows.
        noted: what -> names of rows it is true of, though they are used.
        other_categories: rows passed over because another category was asked for.
        beyond_limit: rows passed over because their categories had enough.
        per_category: category, or `neutral` -> prompts.
    """

    kept: int
    dropped: dict[str, list[str]] = field(default_factory=dict)
    noted: dict[str, list[str]] = field(default_factory=dict)
    other_categories: int = 0
    beyond_limit: int = 0
    per_category: dict[str, int] = field(default_factory=dict)

    def text(self) -> str:
        """Return the report for people."""
        counts = [f"{self.kept} prompts", f"{sum(map(len, self.dropped.values()))} rows dropped"]
        if self.other_categories:
            counts.append(f"{self.other_categories} of other categories passed over")
        if self.beyond_limit:
            counts.append(f"{self.beyond_limit} beyond max_prompts passed over")
        shares = ", ".join(f"{name} {count}" for name, count in self.per_category.items())
        noted = [f"- noted, {line.removeprefix('- ')}" for line in reason_lines(self.noted)]
        return "\n".join([f"{', '.join(counts)}.", *reason_lines(self.dropped), *noted, f"found: {shares}"])

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values, with the names whole."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class PromptSet:
    """Prompts to measure on.

    Attributes:
        name: of the file.
        prompts: at least one, ids unique.
        report: what became of the rows.
        kind: `static`, since a file cannot answer the model.
    """

    name: str
    prompts: tuple[Prompt, ...]
    report: PromptReport
    kind: str = STATIC


def load_prompt_set(
    path: Path, *, category: str | None = None, max_prompts: int = 0, name: str | None = None
) -> PromptSet:
    """Read a prompt set.

    Rows that join sexual content with a word for a minor are dropped, placeholders too. A prompt that stands
    in several rows, one per category, is one prompt of all of them.

    Args:
        path: .csv, .jsonl, .json or .txt in UTF-8, see `read_prompt_file`.
        category: keep the prompts that carry it, in any spelling; rows that name none are taken as of this
            one. `neutral`: prompts that must stay as they are. None keeps all that name theirs.
        max_prompts: keep the first so many of each category; 0 keeps all.
        name: of the set in reports; None is the file's.

    Raises:
        ValueError: as `read_prompt_file`, or if no prompt can be used; it says why.
    """
    wanted = normalize_category(category) if category else None
    reader = _Reader(NEUTRAL if wanted in _HARMLESS else wanted, max_prompts)
    for row, fields in read_prompt_file(path):
        reader.add(row, fields)
    report = reader.finish()
    if not report.kept:
        raise ValueError(f"no prompt of {path.name} can be used.\n{report.text()}")
    return PromptSet(name or path.name, tuple(reader.prompts.values()), report)


class _Reader:
    """Takes in rows one by one."""

    def __init__(self, wanted: str | None, limit: int) -> None:
        self._wanted, self._limit = wanted, limit
        self._dropped: dict[str, list[str]] = {}
        self._noted: dict[str, list[str]] = {}
        self._others = self._beyond = 0
        self._counts: Counter[str] = Counter()
        self._names: dict[str, str] = {}
        self._forbidden: set[str] = set()
        self._unread: tuple[str, ...] = ()  # columns of the first row without a prompt
        self._rows: dict[str, list[Mapping[str, Any]]] = {}  # key of the text -> rows
        self.prompts: dict[str, Prompt] = {}

    def add(self, name: str, fields: Mapping[str, Any] | None) -> None:
        if fields is not None:
            self._rows.setdefault(_text_key(fields), []).append(fields)
        try:
            prompt, bad_seed = _read(name, fields, self._wanted)
        except RowDroppedError as error:
            self._drop(error.reason, name)
            if error.reason == NO_PROMPT:
                self._unread = self._unread or tuple(fields)
            if error.reason == HARD_RULE:
                self._forbidden.add(_text_key(fields))
            return
        groups = groups_of(prompt.categories)
        if self._wanted and self._wanted not in groups:
            self._others += 1
        elif known := self.prompts.get(prompt.id):
            self._noted.setdefault(REPEATED, []).append(name)
            self._join(known, prompt.categories)
        elif self._limit and all(self._counts[group] >= self._limit for group in groups):
            self._beyond += 1
        else:
            self.prompts[prompt.id], self._names[prompt.id] = prompt, name
            self._counts.update(groups)
            if bad_seed:
                self._noted.setdefault(BAD_SEED, []).append(name)

    def _drop(self, reason: str, name: str) -> None:
        self._dropped.setdefault(reason, []).append(name)

    def _join(self, known: Prompt, categories: Sequence[str]) -> None:
        joined = known._replace(categories=normalize_categories([*known.categories, *categories]))
        self._counts.subtract(groups_of(known.categories))
        self._counts.update(groups_of(joined.categories))
        self.prompts[known.id] = joined

    def finish(self) -> PromptReport:
        """Take out what the hard rule forbids in another row of the prompt or in all together; report."""
        if names := self._dropped.pop(NO_PROMPT, None):
            self._dropped[f"{NO_PROMPT}; found {named_columns(self._unread)}"] = names
        for prompt in list(self.prompts.values()):
            key = prompt_key(prompt.prompt)
            rows = self._rows[key]
            texts = tuple(dict.fromkeys(text for row in rows for text in row_texts(row)))
            self.prompts[prompt.id] = prompt._replace(texts=texts)
            if key in self._forbidden or (
                len(rows) > 1 and joins_minor_and_sexual(prompt.categories, *texts)
            ):
                self._drop(HARD_RULE, self._names[prompt.id])
                self._counts.subtract(groups_of(self.prompts.pop(prompt.id).categories))
        return PromptReport(
            kept=len(self.prompts),
            dropped=self._dropped,
            noted=self._noted,
            other_categories=self._others,
            beyond_limit=self._beyond,
            per_category={name: count for name, count in self._counts.items() if count},
        )


def groups_of(categories: Sequence[str]) -> tuple[str, ...]:
    """Return what a prompt counts under: its categories, `neutral` where it has none."""
    return tuple(categories) or (NEUTRAL,)


def _text_key(fields: Mapping[str, Any] | None) -> str:
    column = next((each for each in PROMPT_COLUMNS if each in (fields or {})), "")
    return prompt_key(str((fields or {}).get(column)))


def _read(name: str, fields: Mapping[str, Any] | None, default: str | None) -> tuple[Prompt, bool]:
    """Return the prompt of a row, and whether its seed was of no use."""
    if fields is None:
        raise RowDroppedError(MALFORMED)
    column = next((each for each in PROMPT_COLUMNS if each in fields), None)
    if column is None:
        raise RowDroppedError(NO_PROMPT)
    listed = next((fields[each] for each in CATEGORY_COLUMNS if fields.get(each)), default)
    if joins_minor_and_sexual(raw_categories(fields) or [default or ""], *row_texts(fields)):
        raise RowDroppedError(HARD_RULE)  # first of all, and of the row as it is
    named = {key: value for key, value in fields.items() if key not in CATEGORY_COLUMNS}
    named |= {"id": name, "category": listed}
    text = read_text(named, (column,), ())[column]
    if not listed:
        raise RowDroppedError(NO_CATEGORY)
    categories = tuple(each for each in read_categories(named) if each not in _HARMLESS)
    written = next((fields[each] for each in SEED_COLUMNS if fields.get(each) not in (None, "")), None)
    seed = _seed(written)
    content = f"{prompt_key(text)}\n{'' if seed is None else seed}"
    prompt = Prompt(hashlib.sha256(content.encode()).hexdigest()[:12], text, categories, seed)
    harmless = fields.get(CLEAN_COLUMN)
    if isinstance(harmless, str):
        prompt = prompt._replace(harmless=harmless.strip())
    return prompt, written is not None and seed is None


def _seed(written: Any) -> int | None:
    """Return a seed as files write it, 42 or `42` or `42.0`; None for anything else."""
    digits = str(written).strip().removesuffix(".0")
    usable = digits.isascii() and digits.isdecimal() and len(digits) < 20 and int(digits) <= SEED_MAX
    return int(digits) if usable else None
