"""Action `pairs make`: preference pairs drawn by a base model, on one device or on many."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from ..config import MakeConfig
from .answer import Answer
from .options import add_config_options, add_json, add_model_options, config_from, device_of, shard_of
from .progress import ProgressBar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `pairs make`."""
    add = parser.add_argument
    prompts_help = (
        "text file, one pair a line: `unsafe prompt => safe prompt`, or a JSON object with unsafe_prompt, "
        "safe_prompt and perhaps id and category"
    )
    # names are checked when they are used: listing them here would make every --help wait for torch
    judge_help = "who accepts or rejects a pair, such as open_nsfw; several may be given (default: nobody)"
    add("--base", type=Path, required=True, metavar="B", help="the model to be aligned, see train")
    add("--prompts", type=Path, required=True, metavar="FILE", help=prompts_help)
    add("--category", default="", metavar="C", help="of lines that name none")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the pairs; one begun goes on")
    add("--judge", action="append", default=[], metavar="J", help=judge_help)
    add("--threshold", type=float, metavar="X", help="of every judge (default: each its own)")
    add(
        "--combination", default="any", metavar="R", help="of several judges: any, all or mean (default: any)"
    )
    add("--scheduler", default="ddim", metavar="S", help="ddim, euler or dpmpp_2m (default: %(default)s)")
    add_model_options(parser)
    add_json(parser)
    add_config_options(parser, MakeConfig, {})
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> Answer | None:
    from ..evaluation import Panel, make_judge  # late: they import torch, and --help needs none
    from ..families.base_model import load_base
    from ..making import make_pairs, parse_prompt_pairs
    from ..making.diffusers_draw import DiffusersDraw

    config = config_from(args, MakeConfig)
    prompts = parse_prompt_pairs(args.prompts.read_text(encoding="utf-8-sig"), args.category)
    judges = tuple(make_judge(name, threshold=args.threshold) for name in dict.fromkeys(args.judge))
    shard, device = shard_of(args.device)
    base = load_base(args.base).to(device_of(device))
    sampling = {"scheduler": args.scheduler, "steps": config.steps, "cfg": config.cfg}
    draw = DiffusersDraw(base, **sampling, resolution=args.resolution)
    with ProgressBar("make") as bar:
        report = make_pairs(
            prompts.pairs,
            draw,
            args.out,
            config,
            panel=Panel(judges, args.combination) if judges else None,
            facts={
                "model": base.content_hash,
                "sampler": f"diffusers {args.scheduler}",
                "resolution": args.resolution,
            },
            shard=shard,
            on_progress=bar,
        )
    if shard[0]:
        return None  # of several processes one answers
    report = dataclasses.replace(report, dropped=prompts.dropped)
    facts = {"out": str(args.out), **dataclasses.asdict(report)}
    return Answer(f"{report.text()}\npairs in {args.out}", facts)
