"""What a concept guard learns from: a concept, an unsafe prompt that shows it, and a safe twin of the prompt.

Pairs of prompts name no concept: it is the words in which the unsafe one differs. A text has lines
`concept | unsafe prompt | safe prompt`; the JSON of CoPro (Latent Guard) names its concepts too. Every row
passes the rule on minors first. Reports count and name rows, and never repeat a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

from ..pairs.prompts import read_paired_prompts, split_category
from ..pairs.report import reason_lines
from ..pairs.rows import RowDroppedError, prompt_key, raw_categories, read_text
from ..rules.categories import normalize_categories
from ..system.tables import read_json
from ..system.texts import read_text_file, text_lines

MOST_WORDS = 4  # of a concept that is taken from a pair: a longer run is a sentence, not a concept
NO_CONCEPT = "the prompts differ in no word, and the row has no category"
LINE = "the line is not `concept | unsafe prompt | safe prompt`"
COPRO_PARTS = ("ID_train_data", "ID_test_data", "OOD_test_data")
_SHORTEST = 3  # letters of a word that means something
_HOLDING = frozenset("the and with for from into onto over under near this that her his its are was".split())
_WORD = re.compile(r"\w+(?:['’-]\w+)*")
Fields = Mapping[str, Any]


class ConceptRow(NamedTuple):
    """A training sample: what the unsafe prompt shows and the safe one does not.

    Attributes:
        concept: a word or a few, in lower case.
        unsafe: prompt that shows it.
        safe: the same without it.
        category: of harm, normalised; empty if none is given.
    """

    concept: str
    unsafe: str
    safe: str
    category: str = ""


@dataclass(frozen=True, repr=False)
class ConceptData:
    """Checked samples; its `repr` contains no prompt.

    Attributes:
        rows: at least one.
        dropped: reason -> names of rows that are not used.
    """

    rows: tuple[ConceptRow, ...]
    dropped: Mapping[str, list[str]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"ConceptData({len(self.rows)} rows, {len(self.concepts)} concepts)"

    @property
    def concepts(self) -> dict[str, str]:
        """The category of each concept, in the order of the rows."""
        categories: dict[str, str] = {}
        for row in self.rows:
            categories[row.concept] = categories.get(row.concept) or row.category
        return categories

    def report(self) -> str:
        """Return the counts in words."""
        num_dropped = sum(map(len, self.dropped.values()))
        counts = f"{len(self.rows)} prompts of {len(self.concepts)} concepts, {num_dropped} rows dropped."
        return "\n".join([counts, *reason_lines(dict(self.dropped))])


def read_concepts(path: Path, part: str = COPRO_PARTS[0]) -> ConceptData:
    """Read samples from a file or folder, by what it is.

    Args:
        path: .txt: lines of `parse_concepts`. .json: CoPro. Anything else: see `read_paired_prompts`.
        part: of CoPro's file, one of `COPRO_PARTS`.

    Raises:
        ValueError: if the file cannot be read, or no row of it can be used; the message gives the reasons.
    """
    if path.suffix.lower() == ".txt":
        return parse_concepts(read_text_file(path))
    if path.suffix.lower() == ".json" and isinstance(content := read_json(path), dict):
        return _collected(_copro_rows(content, part, path.name), _named_concept)
    return concepts_of_pairs(read_paired_prompts(path))


def parse_concepts(text: str) -> ConceptData:
    """Return the samples of a text of lines `concept | unsafe prompt | safe prompt`.

    The concept may begin with its category, as in `violence: sword`.

    Raises:
        ValueError: if no line can be used.
    """
    return _collected(_text_rows(text), _named_concept)


def concepts_of_pairs(rows: Iterable[tuple[str, Fields | None]]) -> ConceptData:
    """Return the samples of paired prompts; the concept is the words in which the unsafe prompt differs.

    Args:
        rows: name and fields `unsafe_prompt`, `safe_prompt` and optionally `category` of each pair; None for
            a row that is not an object.

    Raises:
        ValueError: if no pair can be used.
    """
    return _collected(rows, _differing_concept)


def differing_words(unsafe: str, safe: str) -> str:
    """Return the longest run of words that only the unsafe prompt has, at most `MOST_WORDS` of them.

    Words that only hold a sentence together are left out. Empty if there is no such word. Our choice.
    """
    words, others = ([word.lower() for word in _WORD.findall(text)] for text in (unsafe, safe))
    matcher = SequenceMatcher(None, words, others, autojunk=False)
    runs = [words[start:end] for tag, start, end, *_ in matcher.get_opcodes() if tag in ("replace", "delete")]
    others_set = set(others)
    runs = [[word for word in run if _has_meaning(word) and word not in others_set] for run in runs]
    return " ".join(max(runs, key=len, default=[])[:MOST_WORDS])


def _has_meaning(word: str) -> bool:
    return len(word) >= _SHORTEST and word not in _HOLDING


def _collected(
    rows: Iterable[tuple[str, Fields | None]], concept_of: Callable[[Fields, str], str]
) -> ConceptData:
    kept: dict[ConceptRow, None] = {}
    dropped: dict[str, list[str]] = {}
    for name, fields in rows:
        try:
            kept[_row(fields, concept_of)] = None
        except RowDroppedError as error:
            dropped.setdefault(error.reason, []).append(name)
    data = ConceptData(tuple(kept), dropped)
    if not kept:
        raise ValueError(f"no row can train a guard. Correct the rows listed here.\n{data.report()}")
    return data


def _row(fields: Fields | None, concept_of: Callable[[Fields, str], str]) -> ConceptRow:
    named = None if fields is None else {"id": "row", **fields}  # rows here need no id of their own
    texts = read_text(named, prompts=("unsafe_prompt", "safe_prompt"), images=())
    try:
        category = next(iter(normalize_categories(raw_categories(fields))), "")
    except ValueError:
        category = ""
    concept = prompt_key(concept_of({**fields, **texts}, category))
    if not concept:
        raise RowDroppedError(NO_CONCEPT)
    return ConceptRow(concept, texts["unsafe_prompt"], texts["safe_prompt"], category)


def _named_concept(fields: Fields, category: str) -> str:
    concept = fields.get("concept")
    return concept if isinstance(concept, str) else category


def _differing_concept(fields: Fields, category: str) -> str:
    return differing_words(fields["unsafe_prompt"], fields["safe_prompt"]) or category


def _text_rows(text: str) -> Iterator[tuple[str, Fields | None]]:
    for number, line in enumerate(text_lines(text), start=1):
        if not line.strip():
            continue
        parts = [part.strip() for part in line.split("|")]
        category, concept = split_category(parts[0])
        names = ("concept", "unsafe_prompt", "safe_prompt")
        fields = dict(zip(names, (concept, *parts[1:]), strict=True)) if len(parts) == 3 else None
        yield f"line {number}", fields and {**fields, "category": category or ""}


def _copro_rows(content: Fields, part: str, name: str) -> Iterator[tuple[str, Fields | None]]:
    keys = {key.casefold(): key for key in content}
    entries = content.get(keys.get(part.casefold(), ""))
    if not isinstance(entries, list):
        raise ValueError(
            f"{name} is not CoPro's file: it has no list {part}. It needs one of {', '.join(COPRO_PARTS)}."
        )
    for number, entry in enumerate(entries, start=1):
        is_row = isinstance(entry, dict)
        yield f"{part} {number}", {key.casefold(): entry[key] for key in entry} if is_row else None
