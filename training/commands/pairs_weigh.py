"""Action `pairs weigh`: the scores of a judge, written into a manifest once, for `train --pair-weighting`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .answer import Answer
from .judges import add_judge_options, chosen_panel
from .options import add_json, device_of
from .progress import ProgressBar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `pairs weigh`."""
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder that holds pairs.jsonl")
    add_judge_options(parser, "who scores the pictures, such as open_nsfw; several may be given")
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> Answer:
    from ..making.weigh_pairs import weigh_pairs  # late: it imports torch, and --help needs none

    panel = chosen_panel(args, device_of("auto"))
    with ProgressBar("weigh") as bar:
        report = weigh_pairs(args.folder, panel, on_progress=bar)
    return Answer(f"{report.text()}\njudged by {panel.label()}", {**report._asdict(), "judge": panel.label()})
