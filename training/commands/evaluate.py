"""Command `evaluate`: how safe a base and its experts are, and what that costs."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import EvaluateConfig
from ..system.work_folder import locked
from .expert_names import TypedExpert, expert_names, parse_stack, split_file
from .guard import add_guard_options, prompt_filter
from .judges import add_judge_options, chosen_panel, judge_facts
from .options import add_config_options, add_json, add_model_options, config_from, device_of, shard_of
from .output import Answer, ProgressBar

if TYPE_CHECKING:
    import torch

    from ..evaluation import Panel
    from ..evaluation.benchmark import Bench
    from ..evaluation.benchmark.plan import DrawOne, Entrant
    from ..evaluation.prompt_sets import PromptSet
    from ..evaluation.safety_stack import SafetyStack
    from ..experts.expert import SafetyExpert
    from ..models.base_model import BaseModel


class _Applied(NamedTuple):
    """An expert, or a LoRA beside it, that was loaded."""

    typed: TypedExpert
    expert: SafetyExpert


SCOPES = ("frames", "tiles")  # `tests/commands/test_evaluate.py` compares them with the library's
_Stack = Sequence[_Applied]  # an expert, then the LoRAs beside it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `evaluate`."""
    add = parser.add_argument
    expert_help = (
        "an expert, merged or single, optionally with its strength, as in hate.safetensors=0.8; with LoRAs "
        "beside it as in hate.safetensors+style.safetensors=0.5, which is compared with hate.safetensors "
        "alone if that is given too; repeatable"
    )
    prompts_help = (
        "a prompt set, .csv, .jsonl, .json or .txt in its published format; =CATEGORY is the category of "
        "rows without one, as in coco_10k.csv=neutral; neutral prompts measure what must not change; "
        "repeatable"
    )
    inception_help = "weights of torch-fidelity's InceptionV3 as .safetensors, to measure FID"
    blocked_help = (
        ".txt of words that a prompt filter would block, one per line, to measure GenBreak's clean bypass "
        "rate; the report gives their number and none of the words"
    )
    add("--base", type=Path, required=True, metavar="B", help="the base model, see train")
    add("--expert", action="append", default=[], metavar="E[=X][+L[=X]]", help=expert_help)
    add("--prompts", action="append", required=True, metavar="P[=C]", help=prompts_help)
    out_help = "folder of rows and report; an unfinished benchmark is continued"
    add("--out", type=Path, required=True, metavar="DIR", help=out_help)
    max_help = "take only the first N prompts of each category of a set (default: all)"
    add("--max-prompts", type=int, default=0, metavar="N", help=max_help)
    add("--clip-score", type=Path, metavar="DIR", help="a CLIP model of transformers, to measure CLIPScore")
    add("--inception", type=Path, metavar="FILE", help=inception_help)
    add("--blocked-words", type=Path, metavar="FILE", help=blocked_help)
    add_guard_options(parser)
    add("--scheduler", default="ddim", metavar="S", help="ddim, euler or dpmpp_2m (default: %(default)s)")
    add_judge_options(parser, "judge that decides what is unsafe, such as open_nsfw; repeatable")
    scopes_help = (
        "frames judges each picture whole, tiles its quarters and its centre too, which takes six times the "
        "looks and finds what is small (default: %(default)s)"
    )
    add("--scopes", choices=SCOPES, default=SCOPES[0], help=scopes_help)
    add_model_options(parser)
    add_json(parser)
    add_config_options(parser, EvaluateConfig, {})
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> Answer:
    from ..evaluation.benchmark import BenchmarkReport, Study, run_benchmark  # late: --help needs no torch
    from ..evaluation.benchmark.rows import read_rows
    from ..evaluation.blocked_words import read_blocked_words
    from ..models.base_model import load_base

    config = config_from(args, EvaluateConfig)
    sets = [_read_set(words, args.max_prompts) for words in args.prompts]
    blocked = read_blocked_words(args.blocked_words) if args.blocked_words else None
    shard, device_name = shard_of(args.device)
    device = device_of(device_name)
    panel = chosen_panel(args, device)
    base = load_base(args.base)
    guard = prompt_filter(args, base, device)  # refused before anything is drawn
    stacks = [_loaded(parse_stack(words), base) for words in args.expert]
    retention = _retention(stacks)
    bench = _bench(args, config, device, base, sets, panel, stacks)
    with ProgressBar("evaluate") as bar:
        run_benchmark(bench, args.out, shard=shard, on_progress=bar)
    command = shlex.join(["python", "-m", "training", *args.argv])
    with locked(args.out, "writing.lock", wait=True):  # the last of several processes reports all rows
        notes = _notes(stacks, base)
        study = Study(bench, read_rows(args.out), args.out, sets, command, blocked, notes, guard)
        report = BenchmarkReport(study)
        report.write()
    text = [report.text(), *(stack.report() for stack in retention), f"report in {args.out}"]
    facts = {"out": str(args.out), **report.facts()}
    if retention:
        facts["retention"] = [stack.facts() for stack in retention]
    return Answer("\n".join(text), facts)


def _bench(
    args: argparse.Namespace,
    config: EvaluateConfig,
    device: torch.device,
    base: BaseModel,
    sets: Sequence[PromptSet],
    panel: Panel,
    stacks: Sequence[_Stack],
) -> Bench:
    from ..evaluation.benchmark import Bench, load_measures, plan_tasks  # late, as above
    from ..models.diffusers_draw import DiffusersDraw

    sampling = {"scheduler": args.scheduler, "steps": config.steps, "cfg": config.cfg}
    draw = DiffusersDraw(base, **sampling, resolution=args.resolution)
    tasks = plan_tasks(sets, per_prompt=config.per_prompt, seed=config.seed)
    base.warn_of_long({task.prompt.prompt for task in tasks})
    how = "--clip-score DIR, --inception FILE"
    measures = load_measures(args.clip_score, args.inception, device, how=how)
    return Bench(
        tasks=tasks,
        entrants=_entrants(base, draw, stacks),
        panel=panel,
        settings={**_settings(args, config, base), **measures.models},
        measures=measures,
        encode_ahead=partial(draw.encode_ahead, device=device),
        scopes=args.scopes,
    )


def _settings(args: argparse.Namespace, config: EvaluateConfig, base: BaseModel) -> dict[str, Any]:
    """Return everything besides the experts that the pictures and verdicts depend on."""
    return {
        "model": base.content_hash,
        "encoders": base.encoder_id,
        "sampler": f"diffusers {args.scheduler}",
        "resolution": args.resolution,
        "steps": config.steps,
        "cfg": config.cfg,
        "seed": config.seed,
        **judge_facts(args),
    }


def _read_set(words: str, max_prompts: int) -> PromptSet:
    from ..evaluation.prompt_sets import load_prompt_set  # late, as above

    path, category = split_file(words)
    return load_prompt_set(Path(path), category=category, max_prompts=max_prompts, name=path)


def _loaded(stack: Sequence[TypedExpert], base: BaseModel) -> _Stack:
    from ..experts.expert import check_family, load_expert  # late, as above

    members = [_Applied(typed, load_expert(typed.path, assumed_family=base.family.name)) for typed in stack]
    members[0].expert.check_whole()
    for _, expert in members:
        check_family(expert, base.family.name, base.family.text_width)
    return members


def _entrants(base: BaseModel, draw: DrawOne, stacks: Sequence[_Stack]) -> list[Entrant]:
    from ..evaluation.benchmark.plan import (  # late, as above
        BASE,
        Entrant,
        expert_key,
        stacked,
        with_unique_names,
    )

    entrants = [Entrant(base.name, BASE, lambda: nullcontext(draw))]
    names = expert_names(member.typed.path for stack in stacks for member in stack)
    for stack in stacks:
        parts = [
            (names[typed.path] + typed.suffix, expert_key(expert.content_hash, typed.strength))
            for typed, expert in stack
        ]
        entrants.append(stacked(parts, partial(_with_all, stack, base, draw)))
    return with_unique_names(entrants)


@contextmanager
def _with_all(stack: _Stack, base: BaseModel, draw: DrawOne) -> Iterator[DrawOne]:
    from ..experts.applied import applied_expert  # late, as above

    with ExitStack() as contexts:
        for typed, expert in stack:
            contexts.enter_context(applied_expert(base.unet, expert, typed.strength))
        yield draw


def _retention(stacks: Iterable[_Stack]) -> list[SafetyStack]:
    """Return how much of each expert's weights the LoRAs beside it leave."""
    from ..evaluation.safety_stack import safety_stack  # late, as above

    return [
        safety_stack(
            first.expert,
            [(lora.expert, lora.typed.strength) for lora in loras],
            strength=first.typed.strength,
        )
        for first, *loras in stacks
        if loras and first.typed.strength
    ]


def _notes(stacks: Iterable[_Stack], base: BaseModel) -> list[str]:
    """Return a sentence about each expert that acts in part, for its file or for the base."""
    from ..experts.applied import layers_on  # late, as above
    from ..experts.lora_parts import sentence

    experts = {member.typed.path: member.expert for stack in stacks for member in stack}
    notes = []
    for path, name in expert_names(experts).items():
        coverage = layers_on(base.unet, experts[path])
        if coverage.missing:
            notes.append(f"{name}.safetensors: {coverage.sentence()}")
        if experts[path].left_out:
            notes.append(f"{name}.safetensors: applied without {sentence(experts[path].left_out)}")
    return notes
