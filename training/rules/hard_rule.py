"""The rule without a switch: no row may join sexual content with a word for a minor."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from . import words as words
from .disguises import plain, readings, unmasked

# Whole words, so that Middlesex, sextant, kidney, minority and infantry do not match. A digit ends a word:
# the `2` of `child2` hides nothing. Ages end where their digits do.
# Left as text, which `re` compiles when first asked and keeps: a host's start does not wait for it.
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
    """Say whether a row must be dropped: a sexual category or word together with a word for a minor.

    Every loader of prompts and every maker of pairs asks this and counts what it drops. It errs on
    the side of dropping, and has no switch. Disguises are seen through as far as `disguises` says; the words
    are in `hard_rule_words`.

    Args:
        categories: the row's categories in any spelling; `nudity` and `adult` count as sexual.
        texts: everything else the row says: prompts, captions, file names; of a mapping, its `row_texts`.

    Returns:
        True if both sides are found, in the same text or in different ones.
    """
    names = list(categories)
    found = readings(*names, *texts)
    found += tuple(unmasked(text, words.MASKED) for text in found if "*" in text)
    if _any(_BOTH, found):
        return True
    is_sexual = _any(_SEXUAL, found) or any(
        re.fullmatch(_SEXUAL_CATEGORY, plain(name).strip()) for name in names
    )
    return is_sexual and _any(_MINOR, found)


def row_texts(fields: Mapping[str, Any]) -> list[str]:
    """Return all a row says, for `joins_minor_and_sexual`: texts at any depth, ages, flags that are set.

    A value below a name such as `age`, `subject_age` or `ageYears` is an age; a name whose value is true, 1
    or yes is a word of the row (`{"child": true}`).
    """
    found: list[str] = []
    waiting: list[tuple[Any, bool]] = [(fields, False)]  # value, whether it is an age
    while waiting:  # no recursion: a stranger's row may be nested as deep as they like
        value, is_age = waiting.pop()
        if isinstance(value, Mapping):
            found += [_words_of(name) for name, each in value.items() if _is_yes(each)]
            waiting += [(each, is_age or _names_an_age(name)) for name, each in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(each, is_age) for each in value]
        elif isinstance(value, str) or (is_age and isinstance(value, int | float)):
            found.append(f"aged {value}" if is_age else str(value))
    return found


def _is_yes(value: object) -> bool:
    return isinstance(value, str | int | float) and str(value).strip().lower() in _YES


def _words_of(name: object) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", str(name))


def _names_an_age(name: object) -> bool:
    return not _AGE_NAMES.isdisjoint(re.split(r"[^a-z]+", _words_of(name).lower()))


def refuse_minors(*prompts: str) -> None:
    """Refuse single prompts as `joins_minor_and_sexual` drops rows; the message quotes none of them.

    Raises:
        ValueError: if they join sexual content with a word for a minor.
    """
    if joins_minor_and_sexual((), *prompts):
        raise ValueError(
            "the prompts join sexual content with a word for a minor. They are not used, and there is no "
            "switch for that."
        )


def _any(pattern: str, found: tuple[str, ...]) -> bool:
    return any(re.search(pattern, text) for text in found)
