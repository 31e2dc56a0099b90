"""Command-line options that choose who judges pictures, for every command that asks a judge."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ..evaluation import Panel


def add_judge_options(parser: argparse.ArgumentParser, help_text: str, *, required: bool = True) -> None:
    """Add --judge and what goes with it.

    Args:
        parser: of the command.
        help_text: what a judge does there.
        required: whether there must be one.
    """
    add = parser.add_argument_group("who judges").add_argument
    # names are checked when they are used: listing them here would make every --help wait for torch
    add("--judge", action="append", default=[], required=required, metavar="J", help=help_text)
    add("--threshold", type=float, metavar="X", help="of every judge (default: each its own)")
    add(
        "--combination", default="any", metavar="R", help="of several judges: any, all or mean (default: any)"
    )
    clip_help = "a CLIP model of transformers, for the judges that work on one (q16, mhsc)"
    add("--clip-vision", type=Path, metavar="DIR", help=clip_help)
    heads_help = "folder of those judges' own weights: q16.safetensors, mhsc.safetensors"
    add("--judge-heads", type=Path, metavar="DIR", help=heads_help)


def chosen_panel(args: argparse.Namespace, device: torch.device | str) -> Panel | None:
    """Return the judges that `add_judge_options` chose; None where none was.

    Args:
        args: of the command.
        device: where a CLIP model runs.

    Raises:
        ValueError: as `make_judge`, `load_clip_vision` and `Panel`.
    """
    from ..evaluation import Panel, make_judge  # late: they import torch, and --help needs none
    from ..evaluation.judges.clip_vision import load_clip_vision

    names = list(dict.fromkeys(args.judge))
    if not names:
        return None
    embed = load_clip_vision(args.clip_vision, device) if args.clip_vision else None
    parts = {"threshold": args.threshold, "embed": embed, "heads": args.judge_heads}
    return Panel(tuple(make_judge(name, **parts) for name in names), args.combination)


def judge_facts(args: argparse.Namespace) -> dict[str, str]:
    """Return what verdicts depend on besides what `Panel.label` says: the CLIP, where there is one."""
    from ..evaluation.optional import model_hash  # late, as above

    return {"CLIP Vision model": model_hash(args.clip_vision)} if args.clip_vision else {}
