"""Action `pairs make`: preference pairs drawn by a base model, on one device or on many."""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from pathlib import Path

from ..config import MakeConfig
from .answer import Answer
from .judges import add_judge_options, chosen_panel, judge_facts
from .options import add_config_options, add_json, add_model_options, config_from, device_of, shard_of
from .progress import ProgressBar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `pairs make`."""
    add = parser.add_argument
    prompts_help = (
        "text file, one pair a line: `unsafe prompt => safe prompt`, or a JSON object with unsafe_prompt, "
        "safe_prompt and perhaps id and category"
    )
    judge_help = "who accepts or rejects a pair, such as open_nsfw; several may be given (default: nobody)"
    add("--base", type=Path, required=True, metavar="B", help="the model to be aligned, see train")
    add("--prompts", type=Path, required=True, metavar="FILE", help=prompts_help)
    add("--category", default="", metavar="C", help="of lines that name none")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the pairs; one begun goes on")
    add("--scheduler", default="ddim", metavar="S", help="ddim, euler or dpmpp_2m (default: %(default)s)")
    add_judge_options(parser, judge_help, required=False)
    add_model_options(parser)
    add_json(parser)
    add_config_options(parser, MakeConfig, {})
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> Answer | None:
    from ..making.make_pairs import make_pairs
    from ..making.prompt_pairs import parse_prompt_pairs
    from ..models.base_model import load_base  # late: they import torch, and --help needs none
    from ..models.diffusers_draw import DiffusersDraw
    from ..system.tables import read_text_file

    config = config_from(args, MakeConfig)
    prompts = parse_prompt_pairs(read_text_file(args.prompts), args.category)
    shard, device = shard_of(args.device)
    panel = chosen_panel(args, device_of(device))
    base = load_base(args.base)
    sampling = {"scheduler": args.scheduler, "steps": config.steps, "cfg": config.cfg}
    draw = DiffusersDraw(base, **sampling, resolution=args.resolution)
    with ProgressBar("make") as bar:
        report = make_pairs(
            prompts.pairs,
            draw,
            args.out,
            config,
            panel=panel,
            facts={
                "model": base.content_hash,
                "sampler": f"diffusers {args.scheduler}",
                "resolution": args.resolution,
                **judge_facts(args),
            },
            shard=shard,
            encode_ahead=partial(draw.encode_ahead, device=device_of(device)),
            on_progress=bar,
        )
    if shard[0]:
        return None  # of several processes one answers
    report = dataclasses.replace(report, dropped=prompts.dropped)
    facts = {"out": str(args.out), **dataclasses.asdict(report)}
    return Answer(f"{report.text()}\npairs in {args.out}", facts)
