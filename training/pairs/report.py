"""What became of each row of a source: used, passed over, or dropped for one of these reasons."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

NAMED = 5  # rows listed per reason in the text; the counts are always complete

MALFORMED = "not a JSON object on one line"
INCOMPLETE = "a field is missing, empty or of the wrong type"
PLACEHOLDER = "a prompt is a placeholder"
SAME_PROMPT = "both prompts are the same"
SAME_IMAGE = "both images are the same"
CONTRADICTORY = "an image is safe in one row and unsafe in another"
DUPLICATE_ID = "the id occurs before"
DUPLICATE = "the same prompts and images occur before"
OUTSIDE = "an image path leads out of the folder"
LINKED_OUT = "an image is a link that leads out of the folder; put the file itself there"
MISSING = "an image file is missing"
UNREADABLE = "an image file cannot be read"
RESPELLED = "an image file has another letter case or Unicode form than its path"
HARD_RULE = "sexual content together with a word for a minor"
SAME_UNSAFE_PROMPT = "the unsafe prompt occurs before, under another image"
TEST_PROMPT = "the unsafe prompt is also a test prompt"
ONE_SIDE = "the other side of the pair is missing"
TWO_PROMPTS = "an image has different prompts in different rows"
BAD_NAME = "the image name says neither side nor number"
BAD_LABEL = "label_0 is neither 0 nor 1"
TWO_WINNERS = "the rows of the pair name different winners"


@dataclass(frozen=True)
class PairsReport:
    """Counts and names of the rows of one source; never a prompt.

    Args:
        kept: pairs that are used.
        dropped: reason -> ids of the rows; a row without an id is named by its file and line.
        neutral: neutral rows that are used.
        other_categories: valid rows passed over because another category was asked for.
        beyond_limit: rows not read because `max_pairs` was reached.
        found: what -> how often the reader met it, before anything was dropped.
        noted: remark -> names of the rows it applies to, though they may be used.
        per_category: category -> what -> count, before anything was dropped.
        details: id of a dropped row -> the file that its reason is about.
    """

    kept: int
    dropped: dict[str, list[str]] = field(default_factory=dict)
    neutral: int = 0
    other_categories: int = 0
    beyond_limit: int = 0
    found: dict[str, int] = field(default_factory=dict)
    noted: dict[str, list[str]] = field(default_factory=dict)
    per_category: dict[str, dict[str, int]] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)

    @property
    def num_dropped(self) -> int:
        """Number of rows dropped for any reason."""
        return sum(len(ids) for ids in self.dropped.values())

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values, with all names."""
        return dataclasses.asdict(self)

    def text(self) -> str:
        """Return the report for people: the counts, then each reason with its first rows by name."""
        counts = [f"{self.kept} pairs", f"{self.neutral} neutral rows", f"{self.num_dropped} rows dropped"]
        if self.other_categories:
            counts.append(f"{self.other_categories} pairs of other categories passed over")
        if self.beyond_limit:
            counts.append(f"{self.beyond_limit} rows beyond max_pairs not read")
        lines = [f"{', '.join(counts)}."]
        for reason, ids in self.dropped.items():
            lines.append(f"- {_reason(reason, ids)}")
            lines += [f"  - {name}: {self.details[name]}" for name in ids[:NAMED] if name in self.details]
        if self.found:
            lines.append(f"found: {_counted(self.found)}")
        lines += [f"- note: {_reason(remark, names)}" for remark, names in self.noted.items()]
        lines += [f"- {category}: {_counted(counts)}" for category, counts in self.per_category.items()]
        return "\n".join(lines)


def reason_lines(dropped: dict[str, list[str]]) -> list[str]:
    """Return a line for people per reason, with the first rows by name."""
    return [f"- {_reason(reason, ids)}" for reason, ids in dropped.items()]


def _reason(reason: str, ids: list[str]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"{reason}: {len(ids)} ({', '.join(ids[:NAMED])}{more})"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())
