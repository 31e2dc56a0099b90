"""Command `pairs`: what can be done with preference pairs on disk."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from . import pairs_make, pairs_rewrite, pairs_weigh
from .answer import Answer
from .options import add_json
from .progress import ProgressBar

if TYPE_CHECKING:
    from ..pairs import SafetyPairs, SourceRows

SOURCE_HELP = (
    "a folder that holds pairs.jsonl, the CSV of CoProV2 beside its images, or a local image folder with "
    "the columns jpg_0, jpg_1, label_0, caption"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of `pairs` and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = "Read every row and picture, and say which are usable and why the others are not"
    check = actions.add_parser("check", help=summary, description=f"{summary}.")
    check.add_argument("source", type=Path, metavar="P", help=SOURCE_HELP)
    check.add_argument("--category", metavar="C", help="look at the pairs of this category only")
    add_json(check)
    check.set_defaults(run=_check)
    making = "Draw pairs with the model that is to be aligned, judged if wanted; goes on where it was stopped"
    pairs_make.add_arguments(actions.add_parser("make", help=making, description=f"{making}."))
    weighing = "Write a judge's scores into pairs.jsonl once, for train --pair-weighting"
    pairs_weigh.add_arguments(actions.add_parser("weigh", help=weighing, description=f"{weighing}."))
    _add_import(actions)
    rewriting = "Write the safe half of prompts: from a table, a paired file, or a model on this machine"
    pairs_rewrite.add_arguments(actions.add_parser("rewrite", help=rewriting, description=f"{rewriting}."))


def _add_import(actions: argparse._SubParsersAction) -> None:
    summary = "Make a pairs folder of CoProV2: its CSV and images, or a local copy of its image folder"
    parser = actions.add_parser("import-coprov2", help=summary, description=f"{summary}.")
    add = parser.add_argument
    images_help = "folder with the images of the CSV, at any depth (default: beside the CSV)"
    test_help = "CSV of the test prompts; pairs with such an unsafe prompt are left out and named"
    category_help = "take the pairs of this category only; of an image folder, the category of its pairs"
    add("source", type=Path, metavar="CSV", help="CoProV2_train.csv, or a folder with metadata.csv or .jsonl")
    add("--images", type=Path, metavar="DIR", help=images_help)
    add("--out", type=Path, required=True, metavar="DIR", help="the new folder; images are linked or copied")
    add("--test-csv", type=Path, metavar="CSV", help=test_help)
    add("--category", metavar="C", help=category_help)
    add_json(parser)
    parser.set_defaults(run=_import)


def _check(args: argparse.Namespace) -> Answer:
    from ..pairs import load_pairs  # late: it imports torch, and --help needs none

    with ProgressBar("check") as bar:
        pairs = load_pairs(args.source, category=args.category, decode=True, on_progress=bar)
    return _answer(pairs, {"source": str(pairs.source), "content_hash": pairs.content_hash})


def _import(args: argparse.Namespace) -> Answer:
    from ..pairs import collect_pairs  # late, as above
    from ..pairs.copy_pairs import REPORT_FILE, copy_pairs
    from ..system.tensors import refuse_existing

    refuse_existing(args.out)
    with ProgressBar("read") as bar:
        pairs = collect_pairs(_read(args), category=args.category, on_progress=bar)
    with ProgressBar("write") as bar:
        copy_pairs(pairs, args.out, on_progress=bar)
    answer = _answer(pairs, {"source": str(pairs.source), "out": str(args.out)})
    more = (
        f"saved as {args.out}; all names are in its {REPORT_FILE}. The pictures were not decoded: "
        "`pairs check` does that."
    )
    return answer._replace(text=f"{answer.text}\n{more}")


def _read(args: argparse.Namespace) -> SourceRows:
    from ..pairs.coprov2 import read_coprov2
    from ..pairs.image_folder import read_image_folder

    if not args.source.is_dir():
        return read_coprov2(args.source, images=args.images, test_file=args.test_csv)
    if args.images or args.test_csv:
        raise ValueError(f"--images and --test-csv go with a CSV, and {args.source.name} is a folder.")
    return read_image_folder(args.source, args.category)


def _answer(pairs: SafetyPairs, facts: dict[str, object]) -> Answer:
    counts = Counter(name for pair in pairs.pairs for name in pair.categories)
    per_category = ", ".join(f"{name} {counts[name]}" for name in pairs.categories)
    text = f"{pairs.report.text()}\npairs per category: {per_category}"
    return Answer(text, {**facts, "categories": dict(counts), **pairs.report.facts()})
