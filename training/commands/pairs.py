"""Command `pairs`: what can be done with folders of preference pairs."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from .answer import Answer
from .options import add_json

if TYPE_CHECKING:
    from ..data import SafetyPairs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of `pairs` and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = "Read every row and picture, and say which are usable and why the others are not"
    check = actions.add_parser("check", help=summary, description=f"{summary}.")
    check.add_argument("folder", type=Path, metavar="FOLDER", help="folder that holds pairs.jsonl")
    check.add_argument("--category", metavar="C", help="look at the pairs of this category only")
    add_json(check)
    check.set_defaults(run=_check)


def _check(args: argparse.Namespace) -> Answer:
    from ..data import load_pairs  # late: it imports torch, and --help needs none

    pairs = load_pairs(args.folder, category=args.category)
    counts = Counter(name for pair in pairs.pairs for name in pair.categories)
    per_category = ", ".join(f"{name} {counts[name]}" for name in pairs.categories)
    return Answer(
        f"{pairs.report.text()}\npairs per category: {per_category}",
        {
            "source": str(pairs.source),
            "content_hash": pairs.content_hash,
            "categories": dict(counts),
            **report_facts(pairs),
        },
    )


def report_facts(pairs: SafetyPairs) -> dict[str, object]:
    """Return what became of the rows of a folder, as plain values."""
    report = pairs.report
    return {
        "kept": report.kept,
        "neutral": report.neutral,
        "dropped": report.dropped,
        "other_categories": report.other_categories,
        "beyond_limit": report.beyond_limit,
    }
