"""The categories of harm and the spellings accepted for them, and the families' names."""

import re
import unicodedata
from collections.abc import Iterable

CATEGORIES: tuple[str, ...] = (
    "hate",
    "harassment",
    "violence",
    "self-harm",
    "sexual",
    "shocking",
    "illegal activity",
)

FAMILY_NAMES = {"sd15": "SD 1.5", "sd21": "SD 2.1", "sdxl": "SDXL"}
TEXT_WIDTHS = {768: "sd15", 1024: "sd21", 2048: "sdxl"}  # of the text embeddings -> family

# Spellings beyond case, spaces, underscores and hyphens, which `_key` already removes.
_ALIASES = {
    "harrasment": "harassment",  # CoProV2, both files
    "harrassment": "harassment",
    "harasment": "harassment",
    "selfharm": "self-harm",
    "illegal": "illegal activity",
    "illegal activities": "illegal activity",
}


def normalize_category(name: str) -> str:
    """Return the one spelling of a category that all files and widgets use.

    Args:
        name: one category in any case, with spaces, hyphens or underscores; the paper's seven,
            CoProV2's spellings of them, or the user's own.

    Returns:
        A member of `CATEGORIES`, or the user's own name in lower case with single spaces.
        Applying it twice changes nothing.

    Raises:
        ValueError: if the name is blank or holds a comma, which separates categories in files.
    """
    if "," in name:
        raise ValueError(f"one category must not hold a comma, got {name!r}. Give a list instead.")
    key = _key(name)
    if not key:
        raise ValueError(f"a category needs a name, got {name!r}. Use one of: {', '.join(CATEGORIES)}.")
    return _SPELLINGS.get(key, key)


def normalize_categories(value: str | Iterable[str]) -> tuple[str, ...]:
    """Return each category once: the paper's seven in their order, then the user's own by name.

    Args:
        value: category names, or one string of names separated by commas.

    Returns:
        Normalised names; equal for equal sets whatever their order; empty for no name at all.

    Raises:
        ValueError: as `normalize_category`.
    """
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    return tuple(sorted({normalize_category(name) for name in value}, key=_rank))


def _key(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\s_\-\u2010-\u2015]+", " ", folded).strip()


def _rank(category: str) -> tuple[int, str]:
    return (CATEGORIES.index(category) if category in CATEGORIES else len(CATEGORIES), category)


_SPELLINGS = {_key(category): category for category in CATEGORIES} | _ALIASES
