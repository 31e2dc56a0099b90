"""Command `extract`: extract an expert from a fully tuned model."""

import argparse
from pathlib import Path

from ..config import ExtractConfig
from .options import add_config_options, add_json, config_from, new_expert
from .output import Answer, ProgressBar, expert_facts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `extract`."""
    add = parser.add_argument
    kinds = "a .safetensors checkpoint, a UNet alone, or a diffusers folder"
    category_help = "what the tuned model protects from; separate several categories by commas"
    add("--base", type=Path, required=True, metavar="B", help=f"the model before tuning: {kinds}")
    add("--tuned", type=Path, required=True, metavar="T", help="the model after tuning, of the same kinds")
    add("--category", default="", metavar="C", help=category_help)
    add("--out", type=new_expert, required=True, metavar="FILE", help="the new .safetensors file")
    add_json(parser)
    add_config_options(parser, ExtractConfig, {})
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> Answer:
    from ..experts.expert import save_expert  # late: it imports torch, which --help does not need
    from ..experts.extract import extract_expert

    config = config_from(args, ExtractConfig)
    with ProgressBar("extract") as bar:
        expert = extract_expert(args.base, args.tuned, config, categories=args.category, on_progress=bar)
    save_expert(expert, args.out)
    facts = {"out": str(args.out), "expert": expert_facts(expert)}
    return Answer(f"{expert.report()}\nsaved as {args.out}", facts)
