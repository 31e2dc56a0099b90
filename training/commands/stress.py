"""Command `stress`: how a base and its experts hold under attack. Rates come out, never a prompt."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import AttackConfig, EvaluateConfig, InversionConfig, StressConfig
from .answer import Answer
from .judges import add_judge_options
from .options import add_config_options, add_json, add_model_options, category_name, config_from, distance
from .progress import ProgressBar

if TYPE_CHECKING:
    import torch

    from ..system.processes import Processes
    from .kept_outcomes import KeptOutcomes
    from .stress_parts import Model, Parts

LITE = 48  # pictures of a prompt in DiffZOO's lite variant


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of `stress` and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summary = (
        "R(eta): share of unsafe pictures when prompts are pushed along a concept (Ring-A-Bell's direction)"
    )
    curve = actions.add_parser("curve", help=summary, description=f"{summary}.")
    concept_help = (
        ".txt of lines `prompt with the concept | the same without`, CoProV2's CSV, Ring-A-Bell's "
        "with prompt and prompt1, JSON lines with unsafe_prompt and safe_prompt, or a pairs folder"
    )
    curve.add_argument("--concept", type=Path, required=True, metavar="FILE", help=concept_help)
    category_help = "of the concept; refused where no judge sees it (default: not checked)"
    curve.add_argument("--concept-category", type=category_name, metavar="C", help=category_help)
    curve.add_argument(
        "--eta", type=distance, action="append", metavar="X", help="rising; repeat it (default: 0 1 2 3 4 5)"
    )
    _add_shared(curve)
    add_config_options(curve, EvaluateConfig, {})
    curve.set_defaults(run=partial(_together, _curve))
    summary = "Search tokens that encode near pushed prompts (Ring-A-Bell), and draw with them; SD 1.5 only"
    tokens = actions.add_parser("tokens", help=summary, description=f"{summary}.")
    tokens.add_argument("--concept", type=Path, required=True, metavar="FILE", help=concept_help)
    tokens.add_argument("--concept-category", type=category_name, metavar="C", help=category_help)
    tokens.add_argument(
        "--eta", type=distance, default=StressConfig.eta, metavar="X", help="how far (default: %(default)s)"
    )
    tokens.add_argument("--pictures", type=_count, default=1, metavar="N", help="of each prompt (default: 1)")
    _add_sampling(tokens)
    _add_shared(tokens)
    add_config_options(tokens, InversionConfig, {})
    tokens.set_defaults(run=partial(_together, _tokens))
    summary = "Search word substitutions by queries alone (DiffZOO), beside as many random ones as you say"
    words = actions.add_parser("words", help=summary, description=f"{summary}.")
    table_help = "lines `word,substitute,substitute`, or a JSON object of word and list"
    random_help = (
        "random rewordings of each prompt for the baseline, the prompt itself first (default: %(default)s)"
    )
    words.add_argument("--table", type=Path, required=True, metavar="FILE", help=table_help)
    words.add_argument("--rewordings", type=_count, default=LITE, metavar="N", help=random_help)
    words.add_argument("--seeds", type=_count, default=1, metavar="N", help="pictures of each (default: 1)")
    _add_sampling(words)
    _add_shared(words)
    add_config_options(words, AttackConfig, {})
    words.set_defaults(run=partial(_together, _words))


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--steps", type=_count, default=EvaluateConfig.steps, metavar="N", help="of sampling")
    add("--cfg", type=float, default=EvaluateConfig.cfg, metavar="X", help="of sampling")


def _add_shared(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    prompts_help = "a prompt set, see evaluate; for the curve harmless prompts, for words unsafe ones"
    category_help = "of rows that name none; neutral for harmless prompts"
    out_help = (
        "folder to keep outcomes in as they are found, counts only and no prompt; one begun goes on "
        "(default: nothing is kept)"
    )
    add("--base", type=Path, required=True, metavar="B", help="the base model, see train")
    add("--expert", type=Path, action="append", default=[], metavar="E", help="an expert; repeat it")
    add("--strength", type=float, default=1.0, metavar="X", help="of every expert (default: 1)")
    add("--prompts", type=Path, required=True, metavar="P", help=prompts_help)
    add("--category", metavar="C", help=category_help)
    add("--max-prompts", type=int, default=0, metavar="N", help="the first of each category (default: all)")
    add_judge_options(parser, "who says what is unsafe; repeat it for several")
    add("--scheduler", default="ddim", metavar="S", help="ddim, euler or dpmpp_2m (default: %(default)s)")
    add("--out", type=Path, metavar="DIR", help=out_help)
    add_model_options(parser)
    add_json(parser)


def _together(
    action: Callable[[argparse.Namespace, Processes], Answer], args: argparse.Namespace
) -> Answer | None:
    """Run an action alone, or shared over the processes that `accelerate launch` started; one answers."""
    from ..system.processes import PATIENCE, launched_processes  # late: --help needs no torch

    with launched_processes(PATIENCE) as processes:
        answer = action(args, processes)
        return answer if processes.is_first else None


def _curve(args: argparse.Namespace, processes: Processes) -> Answer:
    import torch  # late, as above

    from ..evaluation.attacks import ETAS, Outcome, concept_direction, stress_curve, stressed
    from ..pairs.rows import prompt_key
    from .stress_parts import concept_line, concept_pairs, load_parts, pushable

    config = config_from(args, EvaluateConfig)
    pairs = concept_pairs(args.concept)
    parts, withheld = pushable(load_parts(args, config, steps=config.steps, cfg=config.cfg))
    about = concept_line(args.concept_category, parts)
    parts.base.text_encoder_alone_to(parts.device)
    direction = concept_direction(pairs.pairs, parts.base.encode_prompt)
    told = [(parts.base.encode_prompt(each.prompt).to("cpu"), each.seed) for each in parts.prompts]
    numbered = [(own, seed, n) for own, seed in told for n in range(config.per_prompt)]
    parts.draw.encode_ahead((), parts.device)

    def drawn(at: int, eta: float) -> Outcome:
        own, seed, n = numbered[at]
        seed = config.seed + at if seed is None else seed + n
        picture = parts.draw(stressed(own, direction, eta), seed=seed)
        return Outcome(int(parts.panel.look(picture).flagged()[0]), 1)

    def are_unsafe(model: Model, kept: KeptOutcomes, eta: float) -> Sequence[bool]:
        flags, remember = torch.zeros(len(numbered)), kept.of(model.key, f"eta {eta}")
        for at in range(processes.number, len(numbered), processes.count):
            flags[at] = remember(at, partial(drawn, at, eta)).unsafe
        processes.add_up([flags])
        return flags.bool().tolist()

    def measure(model: Model, kept: KeptOutcomes, bar: ProgressBar) -> Sequence[Any]:
        of = [prompt_key(each.prompt) for each in parts.prompts for _ in range(config.per_prompt)]
        flagged = partial(are_unsafe, model, kept)
        return [stress_curve(flagged, args.eta or ETAS, prompts=of, on_progress=bar)]

    with _kept(args, parts, processes, {"concept": pairs.pairs}, {}) as kept:
        results = _measured(parts, partial(measure, kept=kept), processes)
    lines = [pairs.report(), about, withheld, direction.report(), f"judged by {parts.panel.label()}"]
    facts = {"pairs": direction.num_pairs, "concept_category": args.concept_category}
    return _answer(parts, lines, facts, results)


def _tokens(args: argparse.Namespace, processes: Processes) -> Answer:
    from ..evaluation.attacks import concept_direction, encoder_of, of_all, stressed, token_inversion_attack
    from ..models.conditioning import Conditioning  # late, as above
    from .stress_parts import concept_line, concept_pairs, load_parts, pushable

    config = config_from(args, InversionConfig)
    pairs = concept_pairs(args.concept)
    parts, withheld = pushable(load_parts(args, config, steps=args.steps, cfg=args.cfg))
    about = concept_line(args.concept_category, parts)
    encoder = encoder_of(parts.base.text_encoder)
    direction = concept_direction(pairs.pairs, parts.base.encode_prompt)
    own = range(processes.number, len(parts.prompts), processes.count)
    pushed = [stressed(parts.base.encode_prompt(parts.prompts[at].prompt), direction, args.eta) for at in own]

    def are_unsafe(model: Model, embeds: torch.Tensor) -> Sequence[bool]:
        with model.opened():
            pictures = [parts.draw(Conditioning(embeds), seed=config.seed + n) for n in range(args.pictures)]
        return [bool(parts.panel.look(picture).flagged()[0]) for picture in pictures]

    budget = {"eta": args.eta, "pictures": args.pictures}
    with (
        _kept(args, parts, processes, {"concept": pairs.pairs}, budget) as kept,
        ProgressBar("tokens", shown=processes.is_first) as bar,
    ):
        reports = token_inversion_attack(
            [each.text_embeds[0] for each in pushed],
            encoder,
            [partial(are_unsafe, model) for model in parts.models],
            config,
            categories=("sexual",),  # nobody says what the concept is: the strictest reading of the rule
            budget=args.pictures,
            judge=parts.panel.label(),
            numbers=own,
            remember=[kept.of(model.key, "tokens", own) for model in parts.models],
            on_progress=bar,
        )
    reports = [of_all(report, processes, len(parts.prompts)) for report in reports]
    lines = [pairs.report(), about, withheld, direction.report(), f"eta {args.eta:g}"]
    facts = {"eta": args.eta, "pairs": direction.num_pairs, "concept_category": args.concept_category}
    return _answer(parts, lines, facts, [[report] for report in reports])


def _words(args: argparse.Namespace, processes: Processes) -> Answer:
    import torch  # late, as above

    from ..evaluation.attacks import of_all, parse_substitutions, worst_of_n, zeroth_order_attack
    from ..system.tables import read_text_file
    from .stress_parts import judgeable, load_parts

    config = config_from(args, AttackConfig)
    written = read_text_file(args.table)
    table = parse_substitutions(written)
    parts, unseen = judgeable(load_parts(args, config, steps=args.steps, cfg=args.cfg))
    numbers = range(processes.number, len(parts.prompts), processes.count)
    own = [parts.prompts[number] for number in numbers]
    baseline = {"rewordings": args.rewordings, "seeds": args.seeds}

    def look(texts: Sequence[str], seeds: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        pictures = [parts.draw(text, seed=seed) for text, seed in zip(texts, seeds, strict=True)]
        verdict = parts.panel.look(torch.cat(pictures))
        return verdict.score(), verdict.flagged()

    def measure(model: Model, kept: KeptOutcomes, bar: ProgressBar) -> Sequence[Any]:
        shared = {"judge": parts.panel.label(), "on_progress": bar}
        searched, drawn = (kept.of(model.key, what, numbers) for what in ("search", "random"))
        reports = [
            zeroth_order_attack(own, table, look, config, remember=searched, **shared),
            worst_of_n(own, table, look, seed=config.seed, remember=drawn, **baseline, **shared),
        ]
        return [of_all(report, processes, len(parts.prompts)) for report in reports]

    with _kept(args, parts, processes, {"table": written}, baseline) as kept:
        results = _measured(parts, partial(measure, kept=kept), processes)
    without = sum(not table.sites(each.prompt) for each in parts.prompts)
    lines = [f"{without} of {len(parts.prompts)} prompts have no word of the table"]
    if unseen:
        lines.append(f"not measured: {unseen} prompts of categories that no judge sees are left out")
    facts = {"prompts_without_a_word": without, "prompts_not_judged": unseen}
    return _answer(parts, lines, facts, results)


def _kept(
    args: argparse.Namespace,
    parts: Parts,
    processes: Processes,
    texts: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> AbstractContextManager[KeptOutcomes]:
    """Open the folder of --out, if any, for an action.

    Args:
        args: of the command.
        parts: of the action.
        processes: that share the folder.
        texts: what was read from the person's files; only its fingerprint is written.
        settings: of the action, besides its config class.
    """
    from .kept_outcomes import KeptOutcomes, kept_outcomes  # late, as above
    from .stress_parts import fingerprint

    if args.out is None:
        return nullcontext(KeptOutcomes())
    prints = {what: fingerprint(text) for what, text in {**texts, "prompts": parts.prompts}.items()}
    return kept_outcomes(args.out, {**parts.settings, **settings, **prints}, processes.number)


def _measured(
    parts: Parts, measure: Callable[..., Sequence[Any]], processes: Processes
) -> list[Sequence[Any]]:
    """Return what is measured of each model."""
    found = []
    for model in parts.models:
        with model.opened(), ProgressBar(model.name, shown=processes.is_first) as bar:
            found.append(measure(model, bar=bar))
    return found


def _answer(
    parts: Parts, lines: Sequence[str], facts: Mapping[str, Any], results: Sequence[Sequence[Any]]
) -> Answer:
    """Return the reports of every model below what they were measured with."""
    seen = parts.panel.categories
    what = f"unsafe: flagged by the judges for any category; they see only: {', '.join(seen)}"
    text, models = [parts.found.report.text(), *lines, what], []
    for model, reports in zip(parts.models, results, strict=True):
        text += [f"{model.name}:", *(report.report() for report in reports)]
        models.append({"model": model.name, "results": [report.facts() for report in reports]})
    measured_with = {
        "judge": parts.panel.label(),
        "judged_categories": list(seen),
        "prompts": parts.found.report.facts(),
    }
    return Answer("\n".join(text), {**measured_with, **facts, "models": models})


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, got {text}")
    return int(text)
