"""Action `pairs rewrite`: the safe half of prompts."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..config import RewriteConfig
from .answer import Answer
from .options import add_config_options, add_json, config_from
from .progress import ProgressBar

METHODS = ("table", "paired_file", "endpoint")  # REWRITERS, which --help must not wait for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `pairs rewrite`."""
    add = parser.add_argument
    prompts_help = "text file in UTF-8 with one unsafe prompt a line"
    table_help = "CSV of term,replacement, or a JSON object; no term of it may be left in any rewrite"
    paired_help = (
        "CoProV2's or Ring-A-Bell's CSV, JSON lines with unsafe_prompt and safe_prompt, or a pairs folder"
    )
    endpoint_help = "OpenAI-compatible endpoint on this machine, such as http://127.0.0.1:11434/v1"
    host_help = "let --endpoint be on this host, though it is another machine: the prompts are sent there"
    add("prompts", type=Path, metavar="FILE", help=prompts_help)
    add("--method", choices=METHODS, default="table", help="how to rewrite (default: %(default)s)")
    add("--table", type=Path, metavar="FILE", help=table_help)
    add("--paired-file", type=Path, metavar="P", help=f"for paired_file: {paired_help}")
    add("--endpoint", default="", metavar="URL", help=f"for endpoint: {endpoint_help}")
    add("--endpoint-model", default="", metavar="NAME", help="for endpoint: name of the model there")
    add("--allow-host", default="", metavar="HOST", help=f"for endpoint: {host_help}")
    add("--category", default="", metavar="C", help="what the prompts are against; several with commas")
    add("--out", type=Path, required=True, metavar="FILE", help="new .jsonl file, for `pairs make`")
    add_config_options(parser, RewriteConfig, {})
    add_json(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> Answer:
    """Rewrite the prompts and write both halves."""
    from ..making.rewriting import REWRITERS, RewriteSource, parse_terms, rewrite_prompts
    from ..rules.categories import normalize_categories
    from ..system.tables import read_text_file
    from ..system.tensors import refuse_existing, write_new

    refuse_existing(args.out)
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
