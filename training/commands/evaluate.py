"""Command `evaluate`: how safe a base and its experts are, and what that costs."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..config import EvaluateConfig
from ..system.work_folder import locked
from .answer import Answer
from .expert_names import expert_names
from .judges import add_judge_options, chosen_panel, judge_facts
from .options import add_config_options, add_json, add_model_options, config_from, device_of, shard_of
from .progress import ProgressBar

if TYPE_CHECKING:
    from ..evaluation.attacks import SafetyStack
    from ..evaluation.benchmark.plan import DrawOne, Entrant
    from ..evaluation.prompt_sets import PromptSet
    from ..experts.expert import SafetyExpert
    from ..models.base_model import BaseModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `evaluate`."""
    add = parser.add_argument
    expert_help = (
        "an expert, merged or single, and perhaps its strength, as in hate.safetensors=0.8; with LoRAs "
        "beside it as in hate.safetensors+style.safetensors=0.5, which is compared with hate.safetensors "
        "alone if that is given too; repeat it"
    )
    prompts_help = (
        "a prompt set, .csv, .jsonl, .json or .txt as it comes; with =CATEGORY the one of rows that name "
        "none, as in coco_10k.csv=neutral: neutral prompts measure what must not change; repeat it"
    )
    inception_help = "weights of torch-fidelity's InceptionV3 as .safetensors, to measure FID"
    blocked_help = (
        ".txt of words a filter of prompts would block, one a line, to measure GenBreak's clean bypass rate; "
        "the report holds their number and none of them"
    )
    add("--base", type=Path, required=True, metavar="B", help="the base model, see train")
    add("--expert", action="append", default=[], metavar="E[=X][+L[=X]]", help=expert_help)
    add("--prompts", action="append", required=True, metavar="P[=C]", help=prompts_help)
    add("--out", type=Path, required=True, metavar="DIR", help="folder of rows and report; one begun goes on")
    add(
        "--max-prompts",
        type=int,
        default=0,
        metavar="N",
        help="take the first so many of each category of a set (default: all)",
    )
    add("--clip-score", type=Path, metavar="DIR", help="a CLIP model of transformers, to measure CLIPScore")
    add("--inception", type=Path, metavar="FILE", help=inception_help)
    add("--blocked-words", type=Path, metavar="FILE", help=blocked_help)
    add("--scheduler", default="ddim", metavar="S", help="ddim, euler or dpmpp_2m (default: %(default)s)")
    add_judge_options(parser, "who says what is unsafe, such as open_nsfw; repeat it for several")
    add_model_options(parser)
    add_json(parser)
    add_config_options(parser, EvaluateConfig, {})
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> Answer:
    from ..evaluation.benchmark import Bench, BenchmarkReport, load_measures, plan_tasks, run_benchmark
    from ..evaluation.benchmark.rows import read_rows
    from ..evaluation.blocked_words import read_blocked_words
    from ..models.base_model import load_base
    from ..models.diffusers_draw import DiffusersDraw

    config = config_from(args, EvaluateConfig)
    sets = [_read_set(words, args.max_prompts) for words in args.prompts]
    blocked = read_blocked_words(args.blocked_words) if args.blocked_words else None
    shard, device = shard_of(args.device)
    panel = chosen_panel(args, device_of(device))
    base = load_base(args.base)
    settings = {
        "model": base.content_hash,
        "encoders": base.encoder_id,
        "sampler": f"diffusers {args.scheduler}",
        "resolution": args.resolution,
        "steps": config.steps,
        "cfg": config.cfg,
        "seed": config.seed,
        **judge_facts(args),
    }
    sampling = {"scheduler": args.scheduler, "steps": config.steps, "cfg": config.cfg}
    draw = DiffusersDraw(base, **sampling, resolution=args.resolution)
    tasks = plan_tasks(sets, per_prompt=config.per_prompt, seed=config.seed)
    base.warn_of_long({task.prompt.prompt for task in tasks})
    how = "--clip-score DIR, --inception FILE"
    measures = load_measures(args.clip_score, args.inception, device_of(device), how=how)
    extra = (measures.numbers, measures.features)
    stacks = [[_applied(part, base) for part in _parts(words)] for words in args.expert]
    weights = _weights(stacks)
    ahead = partial(draw.encode_ahead, device=device_of(device))
    bench = Bench(tasks, _entrants(base, draw, stacks), panel, settings | measures.models, *extra, ahead)
    with ProgressBar("evaluate") as bar:
        run_benchmark(bench, args.out, shard=shard, on_progress=bar)
    command = shlex.join(["python", "-m", "training", *args.argv])
    with locked(args.out, "writing.lock", wait=True):  # the last of several processes reports all rows
        given = (
            args.out,
            sets,
            command,
            measures.missing,
            measures.sentences,
            blocked,
            _partly(stacks, base),
        )
        report = BenchmarkReport(bench, read_rows(args.out), *given)
        report.write()
    text = [report.text(), *(each.report() for each in weights), f"report in {args.out}"]
    facts = {"out": str(args.out), **report.facts()}
    if weights:
        facts["retention"] = [each.facts() for each in weights]
    return Answer("\n".join(text), facts)


def _read_set(words: str, max_prompts: int) -> PromptSet:
    from ..evaluation.prompt_sets import load_prompt_set  # late, as above

    path, category = _split(words)
    return load_prompt_set(Path(path), category=category, max_prompts=max_prompts, name=path)


def _split(words: str) -> tuple[str, str | None]:
    """Return a file and what stands behind its last equals sign; a file's own name may hold one too."""
    name, sign, rest = words.rpartition("=")
    return (words, None) if not sign or Path(words).exists() else (name, rest)


def _entrants(base: BaseModel, draw: DrawOne, stacks: Sequence[Sequence[_Applied]]) -> list[Entrant]:
    from ..evaluation.benchmark.plan import BASE, Entrant, expert_key, stacked, told_apart  # late, as above

    entrants = [Entrant(base.name, BASE, lambda: nullcontext(draw))]
    names = expert_names(each.path for stack in stacks for each in stack)
    for stack in stacks:
        keys = [expert_key(each.expert.content_hash, each.strength) for each in stack]
        parts = [(names[each.path] + each.at, key) for each, key in zip(stack, keys, strict=True)]
        entrants.append(stacked(parts, partial(_with_all, stack, base, draw)))
    return told_apart(entrants)


class _Applied(NamedTuple):
    """An expert or a LoRA beside it, as the command line names it; `at`: its strength where that is typed."""

    path: Path
    at: str
    expert: SafetyExpert
    strength: float


def _applied(words: str, base: BaseModel) -> _Applied:
    from ..experts.expert import check_family, load_expert  # late, as above

    path, written = _split(words)
    strength = _strength(words, written)
    expert = load_expert(Path(path))
    check_family(expert, base.family.name, base.family.text_width)
    return _Applied(Path(path), "" if written is None else f" at {strength:g}", expert, strength)


@contextmanager
def _with_all(stack: Sequence[_Applied], base: BaseModel, draw: DrawOne) -> Iterator[DrawOne]:
    from ..experts.applied import applied_expert  # late, as above

    with ExitStack() as opened:
        for each in stack:
            opened.enter_context(applied_expert(base.unet, each.expert, each.strength))
        yield draw


def _weights(stacks: Sequence[Sequence[_Applied]]) -> list[SafetyStack]:
    """Return what the LoRAs beside each expert leave of its weights."""
    from ..evaluation.attacks import safety_stack  # late, as above

    return [
        safety_stack(own.expert, [(lora.expert, lora.strength) for lora in others], strength=own.strength)
        for own, *others in stacks
        if others and own.strength
    ]


def _partly(stacks: Sequence[Sequence[_Applied]], base: BaseModel) -> list[str]:
    """Return a sentence about each expert of which the base lacks layers."""
    from ..experts.applied import layers_on  # late, as above

    experts = {each.path: each.expert for stack in stacks for each in stack}
    found = [(name, layers_on(base.unet, experts[path])) for path, name in expert_names(experts).items()]
    return [f"{name}.safetensors: {each.sentence()}" for name, each in found if each.missing]


def _parts(words: str) -> list[str]:
    """Return the experts between plus signs; a file's own name may hold one too."""
    parts: list[str] = []
    for piece in words.split("+"):
        if parts and not Path(_split(parts[-1])[0]).exists():
            parts[-1] += f"+{piece}"
        else:
            parts.append(piece)
    return parts


def _strength(words: str, written: str | None) -> float:
    try:
        strength = 1.0 if written is None else float(written)
    except ValueError:
        strength = -1.0
    if not 0 <= strength <= 2:
        raise ValueError(f"--expert takes a file and perhaps =STRENGTH from 0 to 2, got {words!r}.")
    return strength
