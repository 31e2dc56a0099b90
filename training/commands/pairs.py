"""Command `pairs`: check, import, move, make, weigh, label and rewrite preference pairs on disk."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from .options import add_json
from .output import Answer, ProgressBar
from .pairs_labelling import add_label_arguments
from .pairs_making import add_make_arguments, add_rewrite_arguments, add_weigh_arguments

if TYPE_CHECKING:
    from ..pairs import SafetyPairs, SourceRows

SOURCE_HELP = (
    "a folder with pairs.jsonl, the CSV of CoProV2 beside its images, or a local image folder with "
    "the columns jpg_0, jpg_1, label_0, caption"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of `pairs` and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, (summary, add_options) in _ACTIONS.items():
        add_options(actions.add_parser(name, help=summary, description=f"{summary}."))


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="P", help=SOURCE_HELP)
    parser.add_argument("--category", metavar="C", help="check only the pairs of this category")
    add_json(parser)
    parser.set_defaults(run=_check)


def _add_import(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    images_help = "folder with the images of the CSV, at any depth (default: beside the CSV)"
    test_help = "CSV of the test prompts; pairs with such an unsafe prompt are left out and listed"
    category_help = "import only the pairs of this category; for an image folder, the category of its pairs"
    add("source", type=Path, metavar="CSV", help="CoProV2_train.csv, or a folder with metadata.csv or .jsonl")
    add("--images", type=Path, metavar="DIR", help=images_help)
    add("--out", type=Path, required=True, metavar="DIR", help="the new folder; images are linked or copied")
    add("--test-csv", type=Path, metavar="CSV", help=test_help)
    add("--category", metavar="C", help=category_help)
    add_json(parser)
    parser.set_defaults(run=_import)


def _add_move(parser: argparse.ArgumentParser) -> None:
    source_help = "a folder of pairs, finished or not, or with such folders, or the CSV of CoProV2"
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE", help=source_help)
    add("target", type=Path, metavar="TARGET", help="its new path; nothing is overwritten")
    add_json(parser)
    parser.set_defaults(run=_move)


_ACTIONS = {  # name -> summary, and what declares its options
    "check": (
        "Read every row and picture, and report which are usable and why the others are not",
        _add_check,
    ),
    "make": (
        "Draw pairs with the model that will be aligned, optionally judged; resumes where it was stopped",
        add_make_arguments,
    ),
    "weigh": (
        "Write the scores of a judge into pairs.jsonl once, for train --pair-weighting",
        add_weigh_arguments,
    ),
    "label": (
        "Let a vision-language model on this machine say which pairs are right, reversed, or neither",
        add_label_arguments,
    ),
    "import-coprov2": (
        "Convert CoProV2 to a pairs folder: its CSV and images, or a local copy of its image folder",
        _add_import,
    ),
    "move": (
        "Move pairs elsewhere, such as out of ComfyUI's input folder, which lists and serves them",
        _add_move,
    ),
    "rewrite": (
        "Write safe versions of unsafe prompts: from a table, a paired file, or a model on this machine",
        add_rewrite_arguments,
    ),
}


def _check(args: argparse.Namespace) -> Answer:
    from ..pairs import load_pairs  # late: it imports torch, and --help needs none

    with ProgressBar("check") as bar:
        pairs = load_pairs(args.source, category=args.category, decode=True, on_progress=bar)
    return _answer(pairs, {"source": str(pairs.source), "content_hash": pairs.content_hash})


def _import(args: argparse.Namespace) -> Answer:
    from ..pairs import collect_pairs  # late, as above
    from ..pairs.copy_pairs import REPORT_FILE, copy_pairs
    from ..system.tensors import refuse_existing
    from ..system.work_folder import try_new_file

    refuse_existing(args.out)
    try_new_file(args.out)
    with ProgressBar("read") as bar:
        pairs = collect_pairs(_read(args), category=args.category, on_progress=bar)
    with ProgressBar("write") as bar:
        copy_pairs(pairs, args.out, on_progress=bar)
    answer = _answer(pairs, {"source": str(pairs.source), "out": str(args.out)})
    more = (
        f"saved as {args.out}; {REPORT_FILE} in it lists every row. The pictures were not decoded; "
        "`pairs check` decodes them."
    )
    return answer._replace(text=f"{answer.text}\n{more}")


def _move(args: argparse.Namespace) -> Answer:
    from ..pairs.move_pairs import move_pairs

    moved = {str(old): str(new) for old, new in move_pairs(args.source, args.target).items()}
    return Answer("\n".join(f"{old} is now {new}" for old, new in moved.items()), {"moved": moved})


def _read(args: argparse.Namespace) -> SourceRows:
    from ..pairs.coprov2 import read_coprov2
    from ..pairs.image_folder import read_image_folder

    if not args.source.is_dir():
        return read_coprov2(args.source, images=args.images, test_file=args.test_csv)
    if args.images or args.test_csv:
        raise ValueError(
            f"--images and --test-csv go with a CSV, but {args.source.name} is a folder. Leave them out."
        )
    return read_image_folder(args.source, args.category)


def _answer(pairs: SafetyPairs, facts: dict[str, object]) -> Answer:
    counts = Counter(name for pair in pairs.pairs for name in pair.categories)
    per_category = ", ".join(f"{name} {counts[name]}" for name in pairs.categories)
    text = f"{pairs.report.text()}\npairs per category: {per_category}"
    return Answer(text, {**facts, "categories": dict(counts), **pairs.report.facts()})
