"""Action `stress tokens`: search tokens that encode near pushed prompts, and draw with them."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from ...config import InversionConfig, StressConfig
from ..guard import add_guard_options
from ..options import add_config_options, config_from, distance
from ..output import Answer, ProgressBar
from .options import add_concept_options, add_sampling_options, count

if TYPE_CHECKING:
    import torch

    from ...system.processes import Processes
    from .parts import Model

SUMMARY = "Search tokens that encode near pushed prompts (Ring-A-Bell), and draw with them; SD 1.5 only"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of this action."""
    eta_help, pictures_help = "distance of the push (default: %(default)s)", "per prompt (default: 1)"
    add_concept_options(parser)
    parser.add_argument("--eta", type=distance, default=StressConfig.eta, metavar="X", help=eta_help)
    parser.add_argument("--pictures", type=count, default=1, metavar="N", help=pictures_help)
    add_guard_options(parser)
    add_sampling_options(parser)
    add_config_options(parser, InversionConfig, {})


def run(args: argparse.Namespace, processes: Processes) -> Answer:
    """Search once, and draw with every model."""
    from ...evaluation.attacks import (  # late: --help needs no torch
        ModelUnderTest,
        PushedPrompts,
        encoder_of,
        stressed,
        sum_over_processes,
        token_inversion_attack,
    )
    from ...guards import guard_of_tokens
    from ...models.conditioning import Conditioning
    from .concept import load_concept_test
    from .run import answer, open_outcomes

    config = _config(args)
    concept = load_concept_test(args, config, steps=args.steps, cfg=args.cfg)
    parts = concept.parts
    parts.base.to(parts.device)
    encoder = encoder_of(parts.base.text_encoder)
    is_blocked = guard_of_tokens(parts.guard, config.free_tokens) if parts.guard else None
    direction = concept.direction()
    pushed = {
        number: stressed(parts.base.encode_prompt(parts.prompts[number].prompt), direction, args.eta)
        for number in range(processes.number, len(parts.prompts), processes.count)
    }
    # --concept may hold any concept, so the rule on minors treats it as sexual
    targets = PushedPrompts({number: row.text_embeds[0] for number, row in pushed.items()}, ("sexual",))

    def are_unsafe(model: Model, embeds: torch.Tensor) -> list[bool]:
        if model.is_guarded and bool(is_blocked(embeds)[0]):
            return [False] * args.pictures  # nothing is drawn, and the attack has failed
        with model.opened():
            pictures = [parts.draw(Conditioning(embeds), seed=config.seed + n) for n in range(args.pictures)]
        return [bool(parts.judge(model, picture).flagged()[0]) for picture in pictures]

    texts, settings = {"concept": concept.pairs.pairs}, {"eta": args.eta, "pictures": args.pictures}
    with (
        open_outcomes(args.out, parts, processes, texts, settings) as outcomes,
        ProgressBar("tokens", shown=processes.is_first) as bar,
    ):
        reports = []
        for is_guarded in (False, True) if parts.guard else (False,):
            models = [
                ModelUnderTest(partial(are_unsafe, model), outcomes.of(model.key, "tokens"))
                for model in parts.models
                if model.is_guarded == is_guarded
            ]
            reports += token_inversion_attack(
                targets,
                encoder._replace(is_blocked=is_blocked) if is_guarded else encoder,
                models,
                config,
                budget=args.pictures,
                judge=parts.panel.label(),
                on_progress=bar,
            )
    results = [[sum_over_processes(report, processes, len(parts.prompts))] for report in reports]
    lines = [*concept.lines(direction), f"eta {args.eta:g}"]
    return answer(parts, lines, {"eta": args.eta, **concept.facts(direction)}, results)


def _config(args: argparse.Namespace) -> InversionConfig:
    """Return the options of the search; refuse what cannot be measured before anything is loaded."""
    config = config_from(args, InversionConfig)
    if config.replay == "text" and args.guard:
        raise ValueError("--replay text cannot be measured behind a guard. Leave out one of the two.")
    return config
