"""The prompts of calibration: chosen from preference pairs, or the lines of a text.

A method that needs categories also needs neutral prompts, on which nothing must change. As in training, these
are everyday prompts that come with the pack, and their words in the sentences of the pairs, each on a picture
of the pairs; those of the user come first. The prompts that training only measures on are never among them.
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
from ..pairs.sentences import with_sentences
from .calibration_inputs import NEUTRAL
from .methods import MERGE_METHODS

# Neutral prompts of each kind, to one prompt of a category: they stand for everything else, and merges of
# seven experts kept less with fewer.
_NEUTRAL_SHARE = 4
_PicturesOf = defaultdict[str, list[Path]]  # distinct prompts, in order -> the pictures of each
_T = TypeVar("_T")
# What the neutral prompts are; the plural ending follows their number.
_EVERYDAY, _FILE = "everyday prompt{s}", "prompt{s} of neutral.jsonl"
_SENTENCES = "sentence{s} of the pairs with everyday words"
_SAFE, _LINES = "safe prompt{s} of the pairs", "neutral line{s} of the text"


class CalibrationPrompts(NamedTuple):
    """The prompts on which the experts are compared.

    Attributes:
        prompts: encoded and run one by one.
        categories: the category that each prompt was chosen for (`NEUTRAL`: none); None if unknown.
        pictures: files of each prompt's pictures; None if prompts have no pictures.
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
    expert would count less for lack of prompts. A method that needs categories also gets as many safe ones,
    and four times as many of each kind of neutral ones: those of the user if there are any, everyday prompts,
    and sentences. An unsafe prompt has both pictures of its pair, because an expert in use meets what lies
    between them, and an everyday prompt has those of some pair.

    Args:
        pairs: of all categories to be merged; a pair of several categories serves each of them.
        config: prompts_per_category, and the method.
        neutral: prompts of no category, each with its picture.

    Returns:
        prompts_per_category unsafe prompts per category, category by category in sorted order, each
        category in the order of the pairs; then, if needed, the neutral and the safe ones.

    Raises:
        ValueError: if there is no pair with a category.
    """
    pairs = list(pairs)
    unsafe: dict[str, _PicturesOf] = {}
    safe, unrelated = _PicturesOf(list), _PicturesOf(list)
    for pair in pairs:
        safe[pair.safe_prompt] += [pair.winner]
        for category in pair.categories:
            unsafe.setdefault(category, _PicturesOf(list))[pair.unsafe_prompt] += _pictures(pair)
    for prompt, picture in neutral:
        unrelated[prompt] += [picture]
    if not unsafe:
        raise ValueError("calibration needs preference pairs with a category, got none.")
    count = config.prompts_per_category
    groups = [(name, unsafe[name], count) for name in sorted(unsafe)]
    counts: dict[str, int] = {}
    if _needs_neutral(config):
        kept = ({_FILE: unrelated} if unrelated else {}) | _everyday_on_pairs(pairs, _NEUTRAL_SHARE * count)
        groups += [(NEUTRAL, texts, _NEUTRAL_SHARE * count) for texts in kept.values()]
        groups += [(NEUTRAL, safe, count)]
        counts = {label: min(len(texts), _NEUTRAL_SHARE * count) for label, texts in kept.items()}
        counts[_SAFE] = min(len(safe), count)
    rows = [
        (prompt, name, tuple(pictures))
        for name, texts, wanted in groups
        for prompt, pictures in _repeated(texts.items(), wanted)
    ]
    return CalibrationPrompts(*zip(*rows, strict=True), neutral=_counted(counts))


def _everyday_on_pairs(
    pairs: Sequence[PreferencePair], count: int
) -> dict[str, dict[str, tuple[Path, Path]]]:
    """Return everyday prompts, and as many sentences of the pairs, each with the pictures of some pair."""
    whole = everyday(count, 0)
    both = with_sentences(whole, [(pair.unsafe_prompt, pair.safe_prompt) for pair in pairs])
    parts = {_EVERYDAY: whole.kept, _SENTENCES: both.kept[len(whole.kept) :]}
    return {label: _spread_over(pairs, prompts) for label, prompts in parts.items() if prompts}


def _spread_over(pairs: Sequence[PreferencePair], prompts: Sequence[str]) -> dict[str, tuple[Path, Path]]:
    places = [number * len(pairs) // len(prompts) for number in range(len(prompts))]
    return {prompt: _pictures(pairs[place]) for prompt, place in zip(prompts, places, strict=True)}


def _pictures(pair: PreferencePair) -> tuple[Path, Path]:
    return pair.loser, pair.winner


def listed_prompts(listed: PromptList, config: MergeConfig) -> CalibrationPrompts:
    """Return all prompts of a text, and after them everyday prompts if neutral ones are needed and missing.

    Args:
        listed: the text. If its lines name no category, nothing is added.
        config: prompts_per_category, of which everyday prompts are four times as many, and the method.
    """
    prompts, categories = listed.prompts, listed.categories
    if categories is None or not _needs_neutral(config):
        return CalibrationPrompts(prompts, categories)
    if num_lines := categories.count(NEUTRAL):
        return CalibrationPrompts(prompts, categories, neutral=_counted({_LINES: num_lines}))
    added = everyday(_NEUTRAL_SHARE * config.prompts_per_category, 0).kept
    return CalibrationPrompts(
        (*prompts, *added),
        (*categories, *[NEUTRAL] * len(added)),
        neutral=_counted({_EVERYDAY: len(added)}),
    )


def _needs_neutral(config: MergeConfig) -> bool:
    collector = MERGE_METHODS[config.method].collector
    return collector is not None and collector.needs_categories


def _counted(counts: Mapping[str, int]) -> str:
    return " and ".join(f"{count} {label.format(s='s' * (count != 1))}" for label, count in counts.items())


def _repeated(items: Iterable[_T], count: int) -> list[_T]:
    items = list(items)
    return [items[i % len(items)] for i in range(count)]
