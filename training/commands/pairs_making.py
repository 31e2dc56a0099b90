"""Command `pairs`: the actions `make`, `weigh` and `rewrite`, which create pairs or prepare them."""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import MakeConfig, RewriteConfig
from .judges import add_judge_options, chosen_panel, judge_facts
from .options import add_config_options, add_json, add_model_options, config_from, device_of, shard_of
from .output import Answer, ProgressBar

if TYPE_CHECKING:
    import torch

    from ..making.weigh_pairs import Rewards

METHODS = (
    "table",
    "paired_file",
    "endpoint",
    "nearest",
    "reasoned",
)  # the keys of REWRITERS, which --help must not import


def add_make_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `pairs make`."""
    add = parser.add_argument
    prompts_help = (
        "text file with one pair per line: `unsafe prompt => safe prompt`, or a JSON object with "
        "unsafe_prompt, safe_prompt and optionally id and category"
    )
    judge_help = "judge that accepts or rejects pairs, such as open_nsfw; may be repeated (default: no judge)"
    out_help = "folder of the pairs; an unfinished one is continued"
    add("--base", type=Path, required=True, metavar="B", help="the model to be aligned, see train")
    add("--prompts", type=Path, required=True, metavar="FILE", help=prompts_help)
    add("--category", default="", metavar="C", help="category of lines that do not name one")
    add("--out", type=Path, required=True, metavar="DIR", help=out_help)
    add("--scheduler", default="ddim", metavar="S", help="ddim, euler or dpmpp_2m (default: %(default)s)")
    add_judge_options(parser, judge_help, required=False)
    add_model_options(parser)
    add_json(parser)
    add_config_options(parser, MakeConfig, {})
    parser.set_defaults(run=_make)


def add_weigh_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `pairs weigh`."""
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="folder that holds pairs.jsonl")
    add("--base", type=Path, metavar="B", help="the base model whose VAE the judge safety_cost reads, if any")
    cost_help = "a safety cost model of `judge train`; writes the cost of each picture, for relabel and soft"
    quality_help = (
        "also write how well each picture fits its own prompt, by the CLIP of --clip-vision; without it, "
        "qualities that a row already has stay"
    )
    add("--cost", type=Path, metavar="FILE", help=cost_help)
    add("--quality", choices=("clip_score",), help=quality_help)
    judge_help = "judge that scores the pictures, such as open_nsfw; may be repeated"
    add_judge_options(parser, judge_help, required=False)
    add_json(parser)
    parser.set_defaults(run=_weigh)


def add_rewrite_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `pairs rewrite`."""
    add = parser.add_argument
    prompts_help = "text file with one unsafe prompt per line"
    table_help = "CSV of term,replacement, or a JSON object; no rewrite may contain one of its terms"
    paired_help = (
        "CoProV2's or Ring-A-Bell's CSV, JSON lines with unsafe_prompt and safe_prompt, or a pairs folder"
    )
    endpoint_help = "OpenAI-compatible endpoint on this machine, such as http://127.0.0.1:11434/v1"
    host_help = "allow --endpoint to be on this other machine; the prompts are sent there"
    category_help = "category of the prompts; several are separated by commas"
    add("prompts", type=Path, metavar="FILE", help=prompts_help)
    add("--method", choices=METHODS, default="table", help="how to rewrite (default: %(default)s)")
    add("--table", type=Path, metavar="FILE", help=table_help)
    add(
        "--paired-file",
        type=Path,
        metavar="P",
        help=f"for paired_file and nearest, and examples for reasoned: {paired_help}",
    )
    add("--endpoint", default="", metavar="URL", help=f"for endpoint and reasoned: {endpoint_help}")
    add(
        "--endpoint-model",
        default="",
        metavar="NAME",
        help="for endpoint and reasoned: name of the model there",
    )
    add("--allow-host", default="", metavar="HOST", help=f"for endpoint and reasoned: {host_help}")
    add("--category", default="", metavar="C", help=category_help)
    add("--out", type=Path, required=True, metavar="FILE", help="new .jsonl file, for `pairs make`")
    add_config_options(parser, RewriteConfig, {})
    add_json(parser)
    parser.set_defaults(run=_rewrite)


# What only an action needs is imported in it, because it imports torch, which --help must not wait for.


def _make(args: argparse.Namespace) -> Answer | None:
    from ..making.make_pairs import DrawingModel, make_pairs
    from ..making.prompt_pairs import parse_prompt_pairs
    from ..models.base_model import load_base
    from ..models.diffusers_draw import DiffusersDraw
    from ..system.texts import read_text_file

    config = config_from(args, MakeConfig)
    prompts = parse_prompt_pairs(read_text_file(args.prompts), args.category)
    shard, device_name = shard_of(args.device)
    device = device_of(device_name)
    panel = chosen_panel(args, device)
    base = load_base(args.base)
    sampling = {"scheduler": args.scheduler, "steps": config.steps, "cfg": config.cfg}
    draw = DiffusersDraw(base, **sampling, resolution=args.resolution)
    facts = {
        "model": base.content_hash,
        "sampler": f"diffusers {args.scheduler}",
        "resolution": args.resolution,
        **judge_facts(args),
    }
    model = DrawingModel(draw, facts, partial(draw.encode_ahead, device=device))
    with ProgressBar("make") as bar:
        report = make_pairs(prompts.pairs, model, args.out, config, panel=panel, shard=shard, on_progress=bar)
    if shard[0]:
        return None  # only the first of several processes answers
    report = dataclasses.replace(report, dropped=prompts.dropped)
    return Answer(
        f"{report.text()}\npairs in {args.out}", {"out": str(args.out), **dataclasses.asdict(report)}
    )


def _weigh(args: argparse.Namespace) -> Answer:
    from ..making.weigh_pairs import weigh_pairs

    device = device_of("auto")
    panel = chosen_panel(args, device)
    rewards, names = _rewards(args, device)
    if panel is None and not names:
        raise ValueError("there is nothing to write. Give --judge, --cost or --quality.")
    with ProgressBar("weigh") as bar:
        report = weigh_pairs(args.folder, panel, rewards=rewards, on_progress=bar)
    names = ([panel.label()] if panel else []) + names
    facts = {**report._asdict(), "judge": panel.label() if panel else None, "measured": names}
    return Answer(f"{report.text()}\njudged by {'; '.join(names)}", facts)


def _rewards(args: argparse.Namespace, device: torch.device) -> tuple[Rewards, list[str]]:
    """Return what --cost and --quality measure, and its names."""
    from ..evaluation.cost_model import read_cost_model  # late, as above
    from ..evaluation.judge import JudgeParts
    from ..evaluation.judges.clip_vision import load_clip_vision
    from ..evaluation.judges.safety_cost import encoders_of
    from ..evaluation.measures.clip_score import load_clip_score
    from ..making.weigh_pairs import Rewards
    from .judge import vae_latents

    rewards, names = Rewards(), []
    if args.cost:
        embed = load_clip_vision(args.clip_vision, device) if args.clip_vision else None
        parts = JudgeParts(embed, latents=vae_latents(args.base, device) if args.base else None)
        model = read_cost_model(args.cost, encoders_of(parts))
        rewards = rewards._replace(cost=lambda picture: float(model.costs(picture)))
        names.append(f"cost: weights {model.id()}, embedding {model.encoder.kind}")
    if args.quality:
        if args.clip_vision is None:
            raise ValueError("--quality clip_score needs a whole CLIP. Give its folder with --clip-vision.")
        rewards = rewards._replace(quality=load_clip_score(args.clip_vision, device))
        names.append("quality: CLIPScore of each picture under its own prompt")
    return rewards, names


def _rewrite(args: argparse.Namespace) -> Answer:
    from ..making.rewriting import REWRITERS, RewriteSource, parse_terms, rewrite_prompts
    from ..rules.categories import normalize_categories
    from ..system.tensors import refuse_existing, write_new
    from ..system.texts import read_text_file
    from ..system.work_folder import try_new_file

    refuse_existing(args.out)
    try_new_file(args.out)
    source = RewriteSource(
        terms=parse_terms(read_text_file(args.table)) if args.table else None,
        paired_file=args.paired_file,
        endpoint=args.endpoint,
        endpoint_model=args.endpoint_model,
        allowed_host=args.allow_host,
    )
    with ProgressBar("rewrite") as bar:
        result = rewrite_prompts(
            read_text_file(args.prompts),
            REWRITERS[args.method](source),
            config_from(args, RewriteConfig),
            terms=source.terms,
            categories=normalize_categories(args.category),
            on_progress=bar,
        )
    write_new(args.out, [result.jsonl().encode()])
    return Answer(f"{result.report()}\nsaved as {args.out}", {"out": str(args.out), **result.facts()})
