"""Which prompts the experts are compared on: unsafe prompts, equally many from each category."""

from collections.abc import Iterable

from ..config import MergeConfig
from ..preference import PreferencePair


def calibration_prompts(pairs: Iterable[PreferencePair], config: MergeConfig) -> tuple[str, ...]:
    """Choose calibration prompts from preference pairs.

    A category with fewer prompts than asked for repeats them, each time with other noise: otherwise
    its expert would win fewer neurons for want of prompts.

    Args:
        pairs: of all categories to be merged; a pair of several categories serves each of them.
        config: prompts_per_category.

    Returns:
        prompts_per_category unsafe prompts per category, category by category in sorted order, each
        category in the order of the pairs.

    Raises:
        ValueError: if there is no pair.
    """
    found: dict[str, dict[str, None]] = {}  # category -> its distinct prompts, in order
    for pair in pairs:
        for category in pair.categories:
            found.setdefault(category, {})[pair.unsafe_prompt] = None
    if not found:
        raise ValueError("calibration needs preference pairs with a category, got none.")
    chosen = [list(found[category]) for category in sorted(found)]
    count = config.prompts_per_category
    return tuple(prompts[i % len(prompts)] for prompts in chosen for i in range(count))
