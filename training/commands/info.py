"""Command `info`: describe an expert."""

import argparse
from pathlib import Path

from .options import add_family, add_json
from .output import Answer, expert_facts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `info`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the .safetensors file")
    add_family(parser)
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> Answer:
    from ..experts.expert import load_expert  # late: it imports torch, which --help does not need

    expert = load_expert(args.file, assumed_family=args.family)
    return Answer(expert.report(), expert_facts(expert))
