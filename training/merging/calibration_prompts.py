"""The prompts of calibration: chosen from preference pairs, or the lines of a text.

A method that needs categories also needs neutral prompts, on which nothing must change. Those of the user
count; where there are none, everyday prompts that come with the pack take their place. The prompts that
training only measures on are never among them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from ..config import MergeConfig
from ..pairs.everyday import everyday
from ..pairs.pair import PreferencePair
from ..pairs.prompts import PromptList
from .calibration_inputs import NEUTRAL
from .methods import MERGE_METHODS

_PicturesOf = defaultdict[str, list[Path]]  # distinct prompts, in order -> the pictures of each
_T = TypeVar("_T")
# What the neutral prompts are; the plural ending follows their number.
_EVERYDAY, _FILE = "everyday prompt{s}", "prompt{s} of neutral.jsonl"
_SAFE, _LINES = "safe prompt{s} of the pairs", "neutral line{s} of the text"


class CalibrationPrompts(NamedTuple):
    """The prompts on which the experts are compared.

    Attributes:
        prompts: encoded and run one by one.
        categories: the category that each prompt was chosen for (`NEUTRAL`: none); None if unknown.
        pictures: files of each prompt's pictures, none of an everyday prompt; None if prompts have no
            pictures.
        neutral: what the neutral prompts are, for people; empty if the method asks for none.
    """

    prompts: tuple[str, ...]
    categories: tuple[str, ...] | None
    pictures: tuple[tuple[Path, ...], ...] | None = None
    neutral: str = ""


def calibration_prompts(
    pairs: Iterable[PreferencePair], config: MergeConfig, neutral: Iterable[tuple[str, Path]] = ()
) -> CalibrationPrompts:
    """Choose calibration prompts from preference pairs.

    A category with fewer prompts than asked for repeats them, each time with other noise; otherwise its
    expert would count less for lack of prompts. A method that needs categories also gets as many neutral
    prompts, and as many safe ones. An unsafe prompt has both pictures of its pair, because an expert in use
    meets what lies between them.

    Args:
        pairs: of all categories to be merged; a pair of several categories serves each of them.
        config: prompts_per_category, and the method.
        neutral: prompts of no category, each with its picture; if there are none, everyday prompts, without
            pictures, are the neutral ones.

    Returns:
        prompts_per_category unsafe prompts per category, category by category in sorted order, each
        category in the order of the pairs; then, if needed, the neutral and the safe ones.

    Raises:
        ValueError: if there is no pair with a category.
    """
    unsafe: dict[str, _PicturesOf] = {}
    safe, unrelated = _PicturesOf(list), _PicturesOf(list)
    for pair in pairs:
        safe[pair.safe_prompt] += [pair.winner]
        for category in pair.categories:
            unsafe.setdefault(category, _PicturesOf(list))[pair.unsafe_prompt] += [pair.loser, pair.winner]
    for prompt, picture in neutral:
        unrelated[prompt] += [picture]
    if not unsafe:
        raise ValueError("calibration needs preference pairs with a category, got none.")
    kept: dict[str, Mapping[str, Sequence[Path]]] = {}
    if _needs_neutral(config):
        kept = {_FILE: unrelated} if unrelated else {_EVERYDAY: dict.fromkeys(_everyday(config), ())}
        kept[_SAFE] = safe
    groups = [(name, unsafe[name]) for name in sorted(unsafe)] + [(NEUTRAL, texts) for texts in kept.values()]
    rows = [
        (prompt, name, tuple(pictures))
        for name, texts in groups
        for prompt, pictures in _repeated(texts.items(), config.prompts_per_category)
    ]
    counts = {label: min(len(texts), config.prompts_per_category) for label, texts in kept.items()}
    return CalibrationPrompts(*zip(*rows, strict=True), neutral=_counted(counts))


def listed_prompts(listed: PromptList, config: MergeConfig) -> CalibrationPrompts:
    """Return all prompts of a text, and after them everyday prompts if neutral ones are needed and missing.

    Args:
        listed: the text. If its lines name no category, nothing is added.
        config: prompts_per_category, which is the number of everyday prompts, and the method.
    """
    prompts, categories = listed.prompts, listed.categories
    if categories is None or not _needs_neutral(config):
        return CalibrationPrompts(prompts, categories)
    if num_lines := categories.count(NEUTRAL):
        return CalibrationPrompts(prompts, categories, neutral=_counted({_LINES: num_lines}))
    added = _everyday(config)
    return CalibrationPrompts(
        (*prompts, *added),
        (*categories, *[NEUTRAL] * len(added)),
        neutral=_counted({_EVERYDAY: len(added)}),
    )


def _needs_neutral(config: MergeConfig) -> bool:
    collector = MERGE_METHODS[config.method].collector
    return collector is not None and collector.needs_categories


def _everyday(config: MergeConfig) -> tuple[str, ...]:
    return everyday(config.prompts_per_category, 0).kept


def _counted(counts: Mapping[str, int]) -> str:
    return " and ".join(f"{count} {label.format(s='s' * (count != 1))}" for label, count in counts.items())


def _repeated(items: Iterable[_T], count: int) -> list[_T]:
    items = list(items)
    return [items[i % len(items)] for i in range(count)]
