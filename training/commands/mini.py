"""Command `mini`: build a mini model."""

import argparse
import logging
from pathlib import Path

from ..mini import WORLDS
from .options import add_json
from .output import Answer, ProgressBar

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `mini`."""
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to fill; existing parts are kept"
    )
    worlds = "; ".join(f"{name}: {summary}" for name, summary in WORLDS.items())
    parser.add_argument(
        "--world", choices=list(WORLDS), default="small", help=f"{worlds} (default: %(default)s)"
    )
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> Answer:
    from ..mini.build import build_mini  # late: it imports torch, which --help must not wait for

    try:
        with ProgressBar("mini") as bar:
            paths = build_mini(args.out, world=args.world, on_progress=bar.stage)
    except KeyboardInterrupt:
        log.info("finished parts stay in %s; run the same command to continue", args.out)
        raise
    facts = {name: str(path) for name, path in paths.items()}
    return Answer("\n".join(f"{name}: {path}" for name, path in facts.items()), facts)
