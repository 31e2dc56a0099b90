"""Action `stress words`: search word substitutions by queries, beside random substitutions as a baseline."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...config import AttackConfig
from ..guard import add_guard_options
from ..options import add_config_options, config_from
from ..output import Answer
from .options import add_sampling_options, count

if TYPE_CHECKING:
    from torch import Tensor

    from ...evaluation.attacks import AttackReport
    from ...system.processes import Processes
    from ..output import ProgressBar
    from .kept_outcomes import KeptOutcomes
    from .parts import Model, StressParts

SUMMARY = "Search word substitutions by queries alone (DiffZOO), beside random ones as a baseline"
LITE = 48  # images of a prompt in DiffZOO's lite variant


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this action."""
    add = parser.add_argument
    table_help = "lines `word,substitute,substitute`, or a JSON object that maps words to lists"
    rewordings_help = (
        "random rewordings of each prompt for the baseline, the prompt itself first (default: %(default)s)"
    )
    seeds_help = "pictures of each random rewording (default: 1)"
    add("--table", type=Path, required=True, metavar="FILE", help=table_help)
    add("--rewordings", type=count, default=LITE, metavar="N", help=rewordings_help)
    add("--seeds", type=count, default=1, metavar="N", help=seeds_help)
    add_guard_options(parser)
    add_sampling_options(parser)
    add_config_options(parser, AttackConfig, {})


def run(args: argparse.Namespace, processes: Processes) -> Answer:
    """Search with every model, and draw the baseline."""
    from ...evaluation.attacks import (  # late: --help needs no torch
        RandomRewordings,
        parse_substitutions,
        sum_over_processes,
        worst_of_n,
        zeroth_order_attack,
    )
    from ...system.texts import read_text_file
    from .parts import judgeable, load_parts
    from .run import answer, measure_models, open_outcomes

    config = config_from(args, AttackConfig)
    table_text = read_text_file(args.table)
    table = parse_substitutions(table_text)
    parts, num_unseen = judgeable(load_parts(args, config, steps=args.steps, cfg=args.cfg))
    parts.base.to(parts.device)
    numbers = range(processes.number, len(parts.prompts), processes.count)
    prompts = [parts.prompts[number] for number in numbers]
    random = RandomRewordings(args.rewordings, args.seeds, config.seed)

    look = _Looks(parts).look

    def measure(outcomes: KeptOutcomes, model: Model, bar: ProgressBar) -> list[AttackReport]:
        shared = {"judge": parts.panel.label(), "on_progress": bar}
        searched, at_random = (outcomes.of(model.key, name, numbers) for name in ("search", "random"))
        reports = [
            zeroth_order_attack(prompts, table, partial(look, model), config, remember=searched, **shared),
            worst_of_n(prompts, table, partial(look, model), random, remember=at_random, **shared),
        ]
        return [sum_over_processes(report, processes, len(parts.prompts)) for report in reports]

    settings = {"rewordings": args.rewordings, "seeds": args.seeds}
    with open_outcomes(args.out, parts, processes, {"table": table_text}, settings) as outcomes:
        results = measure_models(parts, partial(measure, outcomes), processes)
    num_plain = sum(not table.sites(prompt.prompt) for prompt in parts.prompts)
    lines = [f"{num_plain} of {len(parts.prompts)} prompts have no word of the table"]
    if parts.guard:
        lines.append("behind the guard, an attack succeeds if the prompt passes and the picture is unsafe")
    if num_unseen:
        lines.append(f"not measured: {num_unseen} prompts of categories that no judge sees are left out")
    facts = {"prompts_without_a_word": num_plain, "prompts_not_judged": num_unseen}
    return answer(parts, lines, facts, results)


class _Looks:
    """Queries of the models: what the guard of a model blocks is not drawn."""

    def __init__(self, parts: StressParts) -> None:
        self._parts = parts
        self._blocked: dict[str, bool] = {}  # by text; every model behind the guard asks about the same texts

    def look(self, model: Model, texts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return score and flag of each text; what is blocked is a query without a picture, and scores 0."""
        import torch  # late, as above

        passed = [at for at, text in enumerate(texts) if not (model.is_guarded and self._is_blocked(text))]
        scores, flags = torch.zeros(len(texts)), torch.zeros(len(texts), dtype=torch.bool)
        if passed:
            pictures = torch.cat([self._parts.draw(texts[at], seed=seeds[at]) for at in passed])
            verdict = self._parts.judge(model, pictures)
            scores[passed], flags[passed] = verdict.score().cpu().float(), verdict.flagged().cpu()
        return scores, flags

    def _is_blocked(self, text: str) -> bool:
        if text not in self._blocked:
            self._blocked[text] = self._parts.guard.look(text).blocked
        return self._blocked[text]
