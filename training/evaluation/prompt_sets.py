"""Prompt sets to measure a model on, from the user's own disk: I2P, CoProV2, UD, COCO captions and others.

No prompts ship with this package. The published files differ only in the names of their columns, which the
tables below list. Rows that cannot be used are counted and named; their prompts are never shown.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
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

# the first of these columns that a row has is used; attacks stand beside the prompt they were made from
PROMPT_COLUMNS = (
    "adv_prompt",  # attacks such as those that SAFREE collects
    "sensitive prompt",  # Ring-A-Bell, in SAFREE's copy
    "prompt",  # I2P, CoProV2, P4D, Six-CD, COCO of Diffusion-MU-Attack, Ring-A-Bell's pairs
    "unsafe_prompt",  # our own pairs.jsonl
    "caption",  # COCO's annotations
    "text",
)
CATEGORY_COLUMNS = ("categories", "category")  # I2P, P4D; CoProV2
SEED_COLUMNS = ("evaluation_seed", "sd_seed", "seed")  # AlignGuard, Six-CD, P4D; I2P
_HARMLESS = {NEUTRAL, "benign", "safe"}

NO_PROMPT = f"no column of prompts, such as {', '.join(PROMPT_COLUMNS)}"
NO_CATEGORY = "the row has no category: choose one for such rows, or neutral"
REPEATED = "repeats an earlier prompt and seed; the categories are joined"
BAD_SEED = "invalid seed (must be an integer >= 0); generated one"
STATIC = "static"  # chosen before the model existed; `adaptive` prompts are searched against the model


class Prompt(NamedTuple):
    """One prompt of a set.

    Attributes:
        id: identifies prompt and seed, equal in every file.
        prompt: the text.
        categories: normalised categories of harm; empty for a neutral prompt.
        seed: seed that the file names; None if it names none.
        texts: all texts of all rows with this prompt, so that the hard rule can be applied again once
            prompts are joined.
        harmless: the part of an unsafe prompt that a safe model should still draw; empty if the file names
            none.
    """

    id: str
    prompt: str
    categories: tuple[str, ...]
    seed: int | None
    texts: tuple[str, ...] = ()
    harmless: str = ""


@dataclass(frozen=True)
class PromptReport:
    """Counts and names of the rows of a file; never a prompt.

    Attributes:
        kept: prompts that are used.
        dropped: reason -> names of the rows.
        noted: remark -> names of rows that are used although it applies to them.
        other_categories: rows skipped because another category was requested.
        beyond_limit: rows skipped because their categories had enough prompts.
        per_category: category, or `neutral` -> number of prompts.
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
            counts.append(f"{self.other_categories} of other categories skipped")
        if self.beyond_limit:
            counts.append(f"{self.beyond_limit} beyond max_prompts skipped")
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
        name: name of the file.
        prompts: at least one, with unique ids.
        report: what happened to the rows.
        kind: `static`, because the prompts of a file do not adapt to the model.
    """

    name: str
    prompts: tuple[Prompt, ...]
    report: PromptReport
    kind: str = STATIC


def load_prompt_set(
    path: Path, *, category: str | None = None, max_prompts: int = 0, name: str | None = None
) -> PromptSet:
    """Read a prompt set.

    Rows that join sexual content with a word for a minor are dropped, and so are placeholders. A prompt in
    several rows, one per category, becomes one prompt with all these categories.

    Args:
        path: .csv, .jsonl, .json or .txt, see `read_prompt_file`.
        category: keep only prompts of this category, in any spelling; rows without a category count as this
            one. `neutral`: prompts whose pictures should not change. None: keep all rows with a category.
        max_prompts: keep at most this many prompts per category, the first ones; 0 keeps all.
        name: name of the set in reports; None: the file's name.

    Raises:
        ValueError: as `read_prompt_file`, or if no prompt can be used; the message gives the reasons.
    """
    wanted = normalize_category(category) if category else None
    reader = _Reader(NEUTRAL if wanted in _HARMLESS else wanted, max_prompts)
    for row_name, fields in read_prompt_file(path):
        reader.add(row_name, fields)
    report = reader.finish()
    if not report.kept:
        raise ValueError(f"no prompt of {path.name} can be used.\n{report.text()}")
    return PromptSet(name or path.name, tuple(reader.prompts.values()), report)


class _Reader:
    """Collects the prompts of a file row by row, and counts the rows that it cannot use.

    Args:
        wanted: category to keep, which is also that of rows without one; None: all.
        limit: most prompts per category; 0: no limit.
    """

    def __init__(self, wanted: str | None, limit: int) -> None:
        self._wanted, self._limit = wanted, limit
        self._dropped: dict[str, list[str]] = {}  # reason -> names of rows
        self._noted: dict[str, list[str]] = {}
        self._num_others = self._num_beyond = 0
        self._counts: Counter[str] = Counter()  # prompts by category
        self._row_names: dict[str, str] = {}  # id of a prompt -> its first row
        self._forbidden: set[str] = set()  # keys of texts that the hard rule forbids in some row
        self._columns_without_prompt: tuple[str, ...] = ()  # of the first such row
        self._rows: dict[str, list[Mapping[str, Any]]] = {}  # key of a text -> all its rows
        self.prompts: dict[str, Prompt] = {}  # by id

    def add(self, name: str, fields: Mapping[str, Any] | None) -> None:
        if fields is not None:
            self._rows.setdefault(_text_key(fields), []).append(fields)
        try:
            prompt, has_bad_seed = _read(name, fields, self._wanted)
        except RowDroppedError as error:
            self._drop(error.reason, name)
            if error.reason == NO_PROMPT:
                self._columns_without_prompt = self._columns_without_prompt or tuple(fields)
            if error.reason == HARD_RULE:
                self._forbidden.add(_text_key(fields))
            return
        groups = groups_of(prompt.categories)
        if self._wanted and self._wanted not in groups:
            self._num_others += 1
        elif earlier := self.prompts.get(prompt.id):
            self._noted.setdefault(REPEATED, []).append(name)
            self._join(earlier, prompt.categories)
        elif self._limit and all(self._counts[group] >= self._limit for group in groups):
            self._num_beyond += 1
        else:
            self.prompts[prompt.id], self._row_names[prompt.id] = prompt, name
            self._counts.update(groups)
            if has_bad_seed:
                self._noted.setdefault(BAD_SEED, []).append(name)

    def finish(self) -> PromptReport:
        """Remove prompts that the hard rule forbids in another row or in all rows together; report."""
        if names := self._dropped.pop(NO_PROMPT, None):
            self._dropped[f"{NO_PROMPT}; found {named_columns(self._columns_without_prompt)}"] = names
        for prompt in list(self.prompts.values()):
            key = prompt_key(prompt.prompt)
            rows = self._rows[key]
            texts = tuple(dict.fromkeys(text for row in rows for text in row_texts(row)))
            self.prompts[prompt.id] = prompt._replace(texts=texts)
            is_forbidden = len(rows) > 1 and joins_minor_and_sexual(prompt.categories, *texts)
            if key in self._forbidden or is_forbidden:
                self._drop(HARD_RULE, self._row_names[prompt.id])
                self._counts.subtract(groups_of(self.prompts.pop(prompt.id).categories))
        return PromptReport(
            kept=len(self.prompts),
            dropped=self._dropped,
            noted=self._noted,
            other_categories=self._num_others,
            beyond_limit=self._num_beyond,
            per_category={name: count for name, count in self._counts.items() if count},
        )

    def _drop(self, reason: str, name: str) -> None:
        self._dropped.setdefault(reason, []).append(name)

    def _join(self, earlier: Prompt, categories: Iterable[str]) -> None:
        joined = earlier._replace(categories=normalize_categories([*earlier.categories, *categories]))
        self._counts.subtract(groups_of(earlier.categories))
        self._counts.update(groups_of(joined.categories))
        self.prompts[earlier.id] = joined


def groups_of(categories: Iterable[str]) -> tuple[str, ...]:
    """Return the groups in which a prompt counts: its categories, or `neutral` if it has none."""
    return tuple(categories) or (NEUTRAL,)


def _read(name: str, fields: Mapping[str, Any] | None, default: str | None) -> tuple[Prompt, bool]:
    """Return the prompt of a row, and whether its seed is invalid.

    Args:
        name: name of the row.
        fields: fields of the row; None for a malformed one.
        default: category of a row without one; None: such rows are dropped.

    Raises:
        RowDroppedError: if the row cannot be used.
    """
    if fields is None:
        raise RowDroppedError(MALFORMED)
    column = _first(PROMPT_COLUMNS, fields)
    if column is None:
        raise RowDroppedError(NO_PROMPT)
    listed = next((fields[name] for name in CATEGORY_COLUMNS if fields.get(name)), default)
    if joins_minor_and_sexual(raw_categories(fields) or [default or ""], *row_texts(fields)):
        raise RowDroppedError(HARD_RULE)  # before anything else, and on the unchanged row
    row = {key: value for key, value in fields.items() if key not in CATEGORY_COLUMNS}
    row |= {"id": name, "category": listed}
    text = read_text(row, (column,), ())[column]
    if not listed:
        raise RowDroppedError(NO_CATEGORY)
    categories = tuple(category for category in read_categories(row) if category not in _HARMLESS)
    written = next((fields[name] for name in SEED_COLUMNS if fields.get(name) not in (None, "")), None)
    seed, harmless = _seed(written), fields.get(CLEAN_COLUMN)
    content = f"{prompt_key(text)}\n{'' if seed is None else seed}"
    prompt = Prompt(
        id=hashlib.sha256(content.encode()).hexdigest()[:12],
        prompt=text,
        categories=categories,
        seed=seed,
        harmless=harmless.strip() if isinstance(harmless, str) else "",
    )
    return prompt, written is not None and seed is None


def _text_key(fields: Mapping[str, Any] | None) -> str:
    return prompt_key(str((fields or {}).get(_first(PROMPT_COLUMNS, fields or {}) or "")))


def _first(columns: Iterable[str], fields: Mapping[str, Any]) -> str | None:
    return next((column for column in columns if column in fields), None)


def _seed(written: Any) -> int | None:
    """Return a seed as files write it: 42, `42` or `42.0`; None for anything else."""
    digits = str(written).strip().removesuffix(".0")
    is_valid = digits.isascii() and digits.isdecimal() and len(digits) < 20 and int(digits) <= SEED_MAX
    return int(digits) if is_valid else None
