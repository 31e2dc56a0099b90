"""Names that all files share: the categories of harm, with their accepted spellings, and model families."""

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

FAMILY_NAMES = {
    "sd15": "SD 1.5",
    "sd21": "SD 2.1",
    "sdxl": "SDXL",
    "sd3": "SD 3",
    "flux1": "FLUX.1",
    "flux2": "FLUX.2",
    "zimage": "Z-Image",
    "qwenimage": "Qwen-Image",
    "krea2": "Krea 2",
    "anima": "Anima",
}
TEXT_WIDTHS = {768: "sd15", 1024: "sd21", 2048: "sdxl"}  # width of the text embeddings -> family

# Spellings that differ by more than case, spaces, underscores and hyphens, which `_key` removes.
_ALIASES = {
    "harrasment": "harassment",  # CoProV2, both files
    "harrassment": "harassment",
    "harasment": "harassment",
    "selfharm": "self-harm",
    "illegal": "illegal activity",
    "illegal activities": "illegal activity",
}


def normalize_category(name: str) -> str:
    """Return the spelling of a category that all files and widgets use.

    Args:
        name: one category in any case, with spaces, hyphens or underscores: one of the paper's seven, a
            spelling of CoProV2, or a category of the user.

    Returns:
        A member of `CATEGORIES`, or the user's category in lower case with single spaces. Normalising twice
        changes nothing.

    Raises:
        ValueError: if the name is blank or contains a comma, which separates categories in files.
    """
    if "," in name:
        raise ValueError(f"a category must not contain a comma, got {name!r}. Use a list instead.")
    key = _key(name)
    if not key:
        raise ValueError(f"a category needs a name, got {name!r}. Use one of: {', '.join(CATEGORIES)}.")
    return _SPELLINGS.get(key, key)


def normalize_categories(value: str | Iterable[str]) -> tuple[str, ...]:
    """Return each category once: the paper's seven in their order, then those of the user by name.

    Args:
        value: category names, or one string of names separated by commas.

    Returns:
        Normalised names, equal for equal sets in any order; empty if there is no name.

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
