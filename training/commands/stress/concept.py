"""What `curve` and `tokens` share: a concept from --concept, and the prompts that may be pushed along it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from ...evaluation.attacks import (
    ConceptDirection,
    ConceptPairs,
    concept_direction,
    parse_concept_pairs,
    read_concept_pairs,
)
from ...rules.hard_rule import joins_minor_and_sexual
from ...system.texts import read_text_file
from .parts import StressParts, load_parts


class ConceptTest(NamedTuple):
    """A concept and the parts of an action, with prompts that may be pushed along it.

    Attributes:
        pairs: of the concept.
        category: of the concept, from --concept-category; None if not given.
        parts: of the action.
        num_withheld: number of prompts left out because they hold a word for a minor.
    """

    pairs: ConceptPairs
    category: str | None
    parts: StressParts
    num_withheld: int

    def direction(self) -> ConceptDirection:
        """Return the direction of the concept, by the base's text encoder where it is now."""
        return concept_direction(self.pairs.pairs, self.parts.base.encode_prompt)

    def lines(self, direction: ConceptDirection) -> list[str]:
        """Return a summary of the concept, in words."""
        if self.category is None:
            category = "--concept-category is not given, so whether the judges see the concept is not checked"
        else:
            category = f"the concept is of {self.category}"
        withheld = f"{self.num_withheld} prompts with a word for a minor are not pushed"
        return [self.pairs.report(), category, withheld, direction.report()]

    def facts(self, direction: ConceptDirection) -> dict[str, Any]:
        """Return the same as plain values."""
        return {"pairs": direction.num_pairs, "concept_category": self.category}


def load_concept_test(args: argparse.Namespace, config: Any, *, steps: int, cfg: float) -> ConceptTest:
    """Read the concept, load the parts, and leave out prompts that must not be pushed.

    Args:
        args: of the command.
        config: options of the action; outcomes depend on them.
        steps: sampling steps.
        cfg: guidance scale.

    Raises:
        ValueError: if a file or an option cannot be used, if no prompt is left, or if no judge sees the
            category of the concept.
    """
    pairs = _read_pairs(args.concept)
    parts = load_parts(args, config, steps=steps, cfg=cfg)
    allowed = _pushable(parts)
    _check_category(args.concept_category, parts)
    return ConceptTest(pairs, args.concept_category, allowed, len(parts.prompts) - len(allowed.prompts))


def _read_pairs(path: Path) -> ConceptPairs:
    is_text = path.suffix.lower() == ".txt"
    return parse_concept_pairs(read_text_file(path)) if is_text else read_concept_pairs(path)


def _pushable(parts: StressParts) -> StressParts:
    """Leave out prompts with a word for a minor, in the prompt or in another column of its rows.

    The concept may be anything, so the hard rule treats it as sexual.
    """
    allowed = [
        prompt
        for prompt in parts.prompts
        if not joins_minor_and_sexual(("sexual",), prompt.prompt, *prompt.texts)
    ]
    if not allowed:
        raise ValueError(f"no prompt can be used: all {len(parts.prompts)} hold a word for a minor.")
    return parts.with_prompts(allowed)


def _check_category(category: str | None, parts: StressParts) -> None:
    if category is not None and category not in parts.panel.categories:
        raise ValueError(
            f"not measured: the concept is of {category}, but the judges see only "
            f"{', '.join(parts.panel.categories)}. Choose another --judge."
        )
