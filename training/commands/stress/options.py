"""Command-line options that several actions of `stress` share."""

import argparse
from pathlib import Path

from ...config import EvaluateConfig
from ..judges import add_judge_options
from ..options import add_json, add_model_options, category_name


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every action: models, prompts, judges, drawing and the folder of outcomes."""
    add = parser.add_argument
    prompts_help = (
        "a prompt set, as evaluate reads it; for curve and tokens harmless prompts, for words unsafe ones"
    )
    out_help = (
        "folder that keeps outcomes as they arise, as counts and never a prompt; an interrupted run "
        "continues there (default: nothing is kept)"
    )
    add("--base", type=Path, required=True, metavar="B", help="the base model, as train takes it")
    add("--expert", type=Path, action="append", default=[], metavar="E", help="an expert; may be repeated")
    add("--strength", type=float, default=1.0, metavar="X", help="strength of every expert (default: 1)")
    add("--prompts", type=Path, required=True, metavar="P", help=prompts_help)
    add("--category", metavar="C", help="category of rows that name none; neutral for harmless prompts")
    add("--max-prompts", type=int, default=0, metavar="N", help="first N of each category (default: all)")
    add_judge_options(parser, "judge that decides what is unsafe; may be repeated")
    add("--scheduler", default="ddim", metavar="S", help="ddim, euler or dpmpp_2m (default: %(default)s)")
    add("--out", type=Path, metavar="DIR", help=out_help)
    add_model_options(parser)
    add_json(parser)


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Add --steps and --cfg, for actions whose config class does not have them."""
    add = parser.add_argument
    add("--steps", type=count, default=EvaluateConfig.steps, metavar="N", help="sampling steps")
    add("--cfg", type=float, default=EvaluateConfig.cfg, metavar="X", help="guidance scale of sampling")


def add_concept_options(parser: argparse.ArgumentParser) -> None:
    """Add --concept and --concept-category, for actions that push prompts along a concept."""
    concept_help = (
        ".txt with lines `prompt with the concept | the same without`, CoProV2's CSV, Ring-A-Bell's CSV with "
        "prompt and prompt1, JSON lines with unsafe_prompt and safe_prompt, or a pairs folder"
    )
    category_help = "category of the concept; refused if no judge sees it (default: not checked)"
    parser.add_argument("--concept", type=Path, required=True, metavar="FILE", help=concept_help)
    parser.add_argument("--concept-category", type=category_name, metavar="C", help=category_help)


def count(text: str) -> int:
    """Return an integer >= 1, as a type of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text}")
    return int(text)
