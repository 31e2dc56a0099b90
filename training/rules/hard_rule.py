"""The rule without a switch: no row may combine sexual content with a word for a minor."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from . import words
from .disguises import plain, readings, unmasked

# Whole words, so that Middlesex, sextant, kidney, minority and infantry do not match. A digit ends a word, so
# that `child2` is found. Ages end where their digits end.
# These stay strings, which `re` compiles and caches on first use, so that the host starts without delay.
_LEFT, _RIGHT = r"(?<![^\W\d_])", r"(?![^\W\d_])"
_BOTH = rf"{_LEFT}(?:{words.BOTH}){_RIGHT}"


def _plainly(stems: Iterable[str]) -> str:
    return "|".join(re.escape(plain(stem)) for stem in stems)


_SEXUAL = rf"{_LEFT}(?:{words.SEXUAL}){_RIGHT}|{_plainly(words.SEXUAL_ELSEWHERE)}"
_SEXUAL_CATEGORY = words.SEXUAL_CATEGORIES
_MINOR = "|".join(
    (
        rf"{_LEFT}(?:{words.MINOR}){_RIGHT}",
        rf"\b(?:{words.AGE})\b",
        words.BELOW_SIGN,
        _plainly(words.MINOR_ELSEWHERE),
    )
)
_AGE_NAMES = {"age", "ages", "aged"}
_YES = ("true", "yes", "1")


def joins_minor_and_sexual(categories: Iterable[str], *texts: str) -> bool:
    """Return whether a row must be dropped: it has a sexual category or word and a word for a minor.

    Every loader of prompts and every maker of pairs calls this and counts the rows it drops. The rule prefers
    dropping too much and has no switch. Disguised words are found as far as `disguises` undoes them; the
    words are in `words`.

    Args:
        categories: categories of the row in any spelling; `nudity` and `adult` count as sexual.
        texts: all other content of the row: prompts, captions, file names; for a mapping, its `row_texts`.

    Returns:
        True if both are found, in the same text or in different texts.
    """
    names = list(categories)
    variants = readings(*names, *texts)
    variants += tuple(unmasked(text, words.MASKED) for text in variants if "*" in text)
    if _any(_BOTH, variants):
        return True
    is_sexual = _any(_SEXUAL, variants) or any(
        re.fullmatch(_SEXUAL_CATEGORY, plain(name).strip()) for name in names
    )
    return is_sexual and _any(_MINOR, variants)


def row_texts(fields: Mapping[str, Any]) -> list[str]:
    """Return all content of a row for `joins_minor_and_sexual`: texts at any depth, ages, and set flags.

    A value below a name such as `age`, `subject_age` or `ageYears` is an age. A name whose value is true, 1
    or yes counts as a word of the row (`{"child": true}`).
    """
    texts: list[str] = []
    waiting: list[tuple[Any, bool]] = [(fields, False)]  # value, whether it is an age
    while waiting:  # no recursion, because a row from elsewhere may be nested to any depth
        value, is_age = waiting.pop()
        if isinstance(value, Mapping):
            texts += [_words_of(name) for name, item in value.items() if _is_yes(item)]
            waiting += [(item, is_age or _names_an_age(name)) for name, item in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(item, is_age) for item in value]
        elif isinstance(value, str) or (is_age and isinstance(value, int | float)):
            texts.append(f"aged {value}" if is_age else str(value))
    return texts


def _is_yes(value: object) -> bool:
    return isinstance(value, str | int | float) and str(value).strip().lower() in _YES


def _words_of(name: object) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", str(name))


def _names_an_age(name: object) -> bool:
    return not _AGE_NAMES.isdisjoint(re.split(r"[^a-z]+", _words_of(name).lower()))


def refuse_minors(*prompts: str) -> None:
    """Check prompts with `joins_minor_and_sexual`; the error quotes none of them.

    Raises:
        ValueError: if they combine sexual content with a word for a minor.
    """
    if joins_minor_and_sexual((), *prompts):
        raise ValueError(
            "the prompts combine sexual content with a word for a minor. They are not used, and no option "
            "allows them."
        )


def _any(pattern: str, texts: tuple[str, ...]) -> bool:
    return any(re.search(pattern, text) for text in texts)
