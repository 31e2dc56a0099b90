"""What became of every row of a pairs folder: kept, passed over, or dropped for a named reason."""

from dataclasses import dataclass, field

NAMED = 5  # rows named per reason in the text; the counts are always whole

MALFORMED = "not a JSON object on one line"
INCOMPLETE = "a field is missing, empty or of the wrong type"
PLACEHOLDER = "a prompt is a placeholder"
SAME_PROMPT = "both prompts are the same"
SAME_IMAGE = "both images are the same"
CONTRADICTORY = "an image is safe in one row and unsafe in another"
DUPLICATE_ID = "the id occurs before"
DUPLICATE = "the same prompts and images occur before"
OUTSIDE = "an image path leads out of the folder"
MISSING = "an image file is missing"
UNREADABLE = "an image file cannot be read"
HARD_RULE = "sexual content together with a word for a minor"


@dataclass(frozen=True)
class PairsReport:
    """Counts and names of the rows of one source.

    Args:
        kept: pairs that are used.
        dropped: reason -> ids of the rows; a row without an id is named by its file and line.
        neutral: neutral rows that are used.
        other_categories: whole rows passed over because another category was asked for.
        beyond_limit: rows not looked at because `max_pairs` was reached.
    """

    kept: int
    dropped: dict[str, list[str]] = field(default_factory=dict)
    neutral: int = 0
    other_categories: int = 0
    beyond_limit: int = 0

    @property
    def num_dropped(self) -> int:
        """Rows dropped for any reason."""
        return sum(len(ids) for ids in self.dropped.values())

    def text(self) -> str:
        """Return the report for people: the counts, then each reason with its first rows by name."""
        counts = [f"{self.kept} pairs", f"{self.neutral} neutral rows", f"{self.num_dropped} rows dropped"]
        if self.other_categories:
            counts.append(f"{self.other_categories} pairs of other categories passed over")
        if self.beyond_limit:
            counts.append(f"{self.beyond_limit} rows beyond max_pairs not looked at")
        return "\n".join([f"{', '.join(counts)}.", *(_reason(*item) for item in self.dropped.items())])


def _reason(reason: str, ids: list[str]) -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return f"- {reason}: {len(ids)} ({', '.join(ids[:NAMED])}{more})"
