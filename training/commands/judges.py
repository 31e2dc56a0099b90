"""Command-line options that choose the judges of pictures, for every command that needs them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ..evaluation import Panel


def add_judge_options(parser: argparse.ArgumentParser, help_text: str, *, required: bool = True) -> None:
    """Add --judge and the options of judges.

    Args:
        parser: parser of the command.
        help_text: what the command uses a judge for.
        required: whether at least one judge must be chosen.
    """
    add = parser.add_argument_group("who judges").add_argument
    # the names are checked when they are used: listing them here would import torch for every --help
    add("--judge", action="append", default=[], required=required, metavar="J", help=help_text)
    add("--threshold", type=float, metavar="X", help="threshold of every judge (default: that of the judge)")
    add(
        "--combination",
        default="any",
        metavar="R",
        help="how several judges are combined: any, all or mean (default: any)",
    )
    clip_help = "a CLIP model of transformers, for the judges that need one (q16, mhsc, safety_cost)"
    add("--clip-vision", type=Path, metavar="DIR", help=clip_help)
    heads_help = "folder of their weights: q16.safetensors, mhsc.safetensors, safety_cost.safetensors"
    add("--judge-heads", type=Path, metavar="DIR", help=heads_help)


def chosen_panel(args: argparse.Namespace, device: torch.device | str) -> Panel | None:
    """Return the judges chosen by the options of `add_judge_options`; None if none was chosen.

    Args:
        args: parsed options of the command; the VAE of its `base` is the one that safety_cost may read.
        device: where a CLIP model or a VAE runs.

    Raises:
        ValueError: as `make_judge`, `load_clip_vision` and `Panel`.
    """
    from ..evaluation import Panel, make_judge  # late: they import torch, which --help does not need
    from ..evaluation.judges.clip_vision import load_clip_vision
    from .judge import vae_latents

    names = list(dict.fromkeys(args.judge))
    if not names:
        return None
    embed = load_clip_vision(args.clip_vision, device) if args.clip_vision else None
    latents = vae_latents(args.base, device) if args.base else None
    parts = {"threshold": args.threshold, "embed": embed, "heads": args.judge_heads, "latents": latents}
    return Panel(tuple(make_judge(name, **parts) for name in names), args.combination)


def judge_facts(args: argparse.Namespace) -> dict[str, str]:
    """Return what verdicts depend on besides `Panel.label`: the hash of the CLIP model, if one is used."""
    from ..evaluation.optional import model_hash  # late, as above

    return {"CLIP Vision model": model_hash(args.clip_vision)} if args.clip_vision else {}
