"""Which prompts the experts are compared on, which category each stands for, and in which order they run."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch

from ..config import MergeConfig
from ..models.noise import named_generator
from ..pairs.pair import PreferencePair
from .methods import MERGE_METHODS

NEUTRAL = ""  # the category of prompts on which nothing must change
_ROUND = 8  # prompts in a round where categories are unknown
_Pictured = defaultdict[str, list[Path]]  # distinct prompts, in order, and the pictures of each
_T = TypeVar("_T")


class CalibrationPrompts(NamedTuple):
    """What the experts are compared on.

    Attributes:
        prompts: encoded and run one by one.
        categories: which one each prompt was chosen for (`NEUTRAL`: for none); None where nobody said it.
        pictures: files of each prompt's pictures; None where prompts have none.
    """

    prompts: tuple[str, ...]
    categories: tuple[str, ...] | None
    pictures: tuple[tuple[Path, ...], ...] | None = None


def calibration_prompts(
    pairs: Iterable[PreferencePair], config: MergeConfig, neutral: Iterable[tuple[str, Path]] = ()
) -> CalibrationPrompts:
    """Choose calibration prompts from preference pairs.

    A category with fewer prompts than asked for repeats them, each time with other noise: otherwise
    its expert would count less for want of prompts. A method that needs neutral prompts gets as many
    of them, and as many safe ones. An unsafe prompt has both pictures of its pair, since an expert in use
    meets what lies between them.

    Args:
        pairs: of all categories to be merged; a pair of several categories serves each of them.
        config: prompts_per_category, and what the method needs.
        neutral: prompts of no category, each with its picture.

    Returns:
        prompts_per_category unsafe prompts per category, category by category in sorted order, each
        category in the order of the pairs; then, if needed, the neutral ones.

    Raises:
        ValueError: if there is no pair.
    """
    found: dict[str, _Pictured] = {}
    safe, other = _Pictured(list), _Pictured(list)
    for pair in pairs:
        safe[pair.safe_prompt] += [pair.winner]
        for category in pair.categories:
            found.setdefault(category, _Pictured(list))[pair.unsafe_prompt] += [pair.loser, pair.winner]
    for prompt, picture in neutral:
        other[prompt] += [picture]
    if not found:
        raise ValueError("calibration needs preference pairs with a category, got none.")
    chosen = [(name, found[name]) for name in sorted(found)]
    needed = MERGE_METHODS[config.method].needs_statistics
    if needed and needed.needs_categories:
        chosen += [(NEUTRAL, texts) for texts in (other, safe) if texts]
    rows = [
        (prompt, name, tuple(pictures))
        for name, texts in chosen
        for prompt, pictures in _repeated(texts.items(), config.prompts_per_category)
    ]
    return CalibrationPrompts(*zip(*rows, strict=True))


def rounds_of(num_prompts: int, categories: Sequence[str] | None, seed: int) -> list[list[int]]:
    """Return the order in which prompts run: in rounds, so that a pass that stops early has seen all kinds.

    Args:
        num_prompts: how many there are.
        categories: one per prompt; None shuffles the prompts, since nobody knows what they are of.
        seed: of the shuffle.

    Returns:
        Numbers of prompts. Where categories are known, a round holds one prompt of each that has some left.
    """
    if categories is None:
        order = torch.randperm(num_prompts, generator=named_generator(f"calibration order/{seed}")).tolist()
        return [order[start : start + _ROUND] for start in range(0, num_prompts, _ROUND)]
    rounds: list[list[int]] = []
    seen: dict[str, int] = {}
    for number, category in enumerate(categories):
        place = seen[category] = seen.get(category, -1) + 1
        if place == len(rounds):
            rounds.append([])
        rounds[place].append(number)
    return rounds


def _repeated(found: Iterable[_T], count: int) -> list[_T]:
    listed = list(found)
    return [listed[i % len(listed)] for i in range(count)]
