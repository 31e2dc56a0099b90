"""Action `pairs weigh`: the scores of a judge, written into a manifest once, for `train --pair-weighting`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .answer import Answer
from .options import add_json
from .progress import ProgressBar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `pairs weigh`."""
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder that holds pairs.jsonl")
    judge_help = "who scores the pictures, such as open_nsfw; several may be given"
    add("--judge", action="append", required=True, metavar="J", help=judge_help)
    add(
        "--combination", default="any", metavar="R", help="of several judges: any, all or mean (default: any)"
    )
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> Answer:
    from ..evaluation import Panel, make_judge  # late: they import torch, and --help needs none
    from ..making import weigh_pairs

    panel = Panel(tuple(make_judge(name) for name in dict.fromkeys(args.judge)), args.combination)
    with ProgressBar("weigh") as bar:
        report = weigh_pairs(args.folder, panel, on_progress=bar)
    return Answer(f"{report.text()}\njudged by {panel.label()}", {**report._asdict(), "judge": panel.label()})
