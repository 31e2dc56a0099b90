"""Command `stress`: attack a base model and its experts, and report only rates, never a prompt.

Each action is one attack. Its file has `SUMMARY`, `add_arguments(parser)` for the options that only this
attack has, and `run(args, processes) -> Answer`. To add an attack: write its file, then add its line to
`ACTIONS`. Every file follows the same order:

    options   the shared ones stand in `options.py`
    parts     `load_parts` loads base, experts, judges and prompts; `load_concept_test` a concept too
    run       `open_outcomes` keeps outcomes in --out, `measure_models` attacks the base and every expert
    answer    `answer` words the reports of all models
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..output import Answer
from . import curve, tokens, words
from .options import add_shared_options

if TYPE_CHECKING:
    from ...system.processes import Processes

ACTIONS = {  # name of the action -> its file
    "curve": curve,
    "tokens": tokens,
    "words": words,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of `stress` and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, action in ACTIONS.items():
        options = actions.add_parser(name, help=action.SUMMARY, description=f"{action.SUMMARY}.")
        action.add_arguments(options)
        add_shared_options(options)
        options.set_defaults(run=partial(_run, action.run))


def _run(
    action: Callable[[argparse.Namespace, Processes], Answer], args: argparse.Namespace
) -> Answer | None:
    """Run an action, shared by the processes that `accelerate launch` started; only the first one answers."""
    from ...system.processes import PATIENCE, launched_processes  # late: --help needs no torch

    with launched_processes(PATIENCE) as processes:
        result = action(args, processes)
        return result if processes.is_first else None
