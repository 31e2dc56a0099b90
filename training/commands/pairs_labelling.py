"""Command `pairs`: the action `label`, which asks a vision-language model about pairs or about MIS's test."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..config import LabelConfig
from .judges import add_judge_options, chosen_panel
from .options import add_config_options, add_json, config_from, device_of
from .output import Answer, ProgressBar, read_pairs

LABELS_SUFFIX, REPORT_FILE = "_labels", "report.json"


def add_label_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `pairs label`."""
    add = parser.add_argument
    out_help = (
        "new folder of the pairs that are kept or relabelled; every answer is kept beside it, in the folder "
        f"with {LABELS_SUFFIX} added, from which a stopped run continues"
    )
    mis_help = "instead of pairs: the folder of MIS's test files and pictures; prints its measures"
    add("source", type=Path, nargs="?", metavar="P", help="pairs, see `pairs check`")
    add("--out", type=Path, metavar="DIR", help=out_help)
    add("--mis", type=Path, metavar="DIR", help=mis_help)
    add(
        "--endpoint",
        required=True,
        metavar="URL",
        help="OpenAI-compatible endpoint of a vision-language model on this machine",
    )
    add("--endpoint-model", required=True, metavar="NAME", help="name of the model there")
    add("--allow-host", default="", metavar="HOST", help="allow --endpoint to be on this other machine")
    add("--max-pairs", type=int, default=0, metavar="N", help="use only the first N pairs (default: all)")
    add_judge_options(parser, "second judge, whose agreement is measured; may be repeated", required=False)
    add_config_options(parser, LabelConfig, {})
    add_json(parser)
    parser.set_defaults(run=_label)


def _label(args: argparse.Namespace) -> Answer:
    from ..making.local_endpoint import open_endpoint  # late: --help needs none of it

    if (args.mis is None) == (args.source is None) or (args.source is not None) != (args.out is not None):
        raise ValueError("pairs label takes pairs and --out DIR, or --mis DIR alone.")
    endpoint = open_endpoint(args.endpoint, args.endpoint_model, allowed_host=args.allow_host)
    return _label_pairs(args, endpoint) if args.source else _run_mis(args, endpoint)


def _label_pairs(args: argparse.Namespace, endpoint) -> Answer:
    from ..making.label_pairs import label_pairs
    from ..pairs.copy_pairs import copy_pairs
    from ..system.tensors import refuse_existing
    from ..system.work_folder import try_new_file, write_whole

    refuse_existing(args.out)
    try_new_file(args.out)
    pairs = read_pairs(args.source, max_pairs=args.max_pairs)
    folder = args.out.with_name(args.out.name + LABELS_SUFFIX)
    config = config_from(args, LabelConfig)
    with ProgressBar("label") as bar:
        panel = chosen_panel(args, device_of("auto"))
        labelled, report = label_pairs(pairs, endpoint, folder, config, panel=panel, on_progress=bar)
    facts = report.facts()
    write_whole(folder / REPORT_FILE, json.dumps(facts, indent=1).encode())
    copy_pairs(labelled, args.out)
    text = f"{report.text()}\nsaved as {args.out}; the answers are in {folder}"
    return Answer(text, {"out": str(args.out), "model": endpoint.model, **facts})


def _run_mis(args: argparse.Namespace, endpoint) -> Answer:
    from ..making.mis import run_mis

    with ProgressBar("mis") as bar:
        report = run_mis(args.mis, endpoint, most=args.max_pairs, on_progress=bar)
    return Answer(report.text(), report.facts())
