"""Which prompts the experts are compared on, which category each stands for, and in which order they run."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from ..config import MergeConfig
from ..noise import named_generator
from ..preference import PreferencePair
from .methods import MERGE_METHODS

NEUTRAL = ""  # the category of prompts on which nothing must change
_ROUND = 8  # prompts in a round where categories are unknown


class CalibrationPrompts(NamedTuple):
    """Prompts, and the category each was chosen for (`NEUTRAL`: for none); None where nobody said it."""

    prompts: tuple[str, ...]
    categories: tuple[str, ...] | None


def calibration_prompts(
    pairs: Iterable[PreferencePair], config: MergeConfig, neutral: Iterable[str] = ()
) -> CalibrationPrompts:
    """Choose calibration prompts from preference pairs.

    A category with fewer prompts than asked for repeats them, each time with other noise: otherwise
    its expert would count less for want of prompts. A method that needs neutral prompts gets as many
    of them, and as many safe ones.

    Args:
        pairs: of all categories to be merged; a pair of several categories serves each of them.
        config: prompts_per_category, and what the method needs.
        neutral: prompts of no category.

    Returns:
        prompts_per_category unsafe prompts per category, category by category in sorted order, each
        category in the order of the pairs; then, if needed, the neutral ones.

    Raises:
        ValueError: if there is no pair.
    """
    found: dict[str, dict[str, None]] = {}  # category -> its distinct prompts, in order
    safe: dict[str, None] = {}
    for pair in pairs:
        safe[pair.safe_prompt] = None
        for category in pair.categories:
            found.setdefault(category, {})[pair.unsafe_prompt] = None
    if not found:
        raise ValueError("calibration needs preference pairs with a category, got none.")
    count = config.prompts_per_category
    chosen = [(name, _repeated(found[name], count)) for name in sorted(found)]
    needed = MERGE_METHODS[config.method].needs_statistics
    if needed and needed.needs_categories:
        chosen += [(NEUTRAL, _repeated(texts, count)) for texts in (dict.fromkeys(neutral), safe) if texts]
    prompts = tuple(prompt for _, prompts in chosen for prompt in prompts)
    return CalibrationPrompts(prompts, tuple(name for name, prompts in chosen for _ in prompts))


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


def _repeated(prompts: Iterable[str], count: int) -> list[str]:
    listed = list(prompts)
    return [listed[i % len(listed)] for i in range(count)]
