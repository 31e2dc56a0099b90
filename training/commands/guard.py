"""Command `guard`: train a guard that reads prompts, and test one on prompts that it was not trained on."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import GuardConfig, InterpretConfig, option_help
from ..config.guard import BASE, SMALL
from .options import add_config_options, add_json, config_from, device_of, new_expert
from .output import Answer, ProgressBar

if TYPE_CHECKING:
    import torch

    from ..evaluation.benchmark.guarded import PromptFilter
    from ..guards import Guard, GuardEncoder
    from ..models.base_model import BaseModel

CONCEPT, INTERPRETER = KINDS = (
    "concept",
    "interpreter",
)  # that `train` makes; `tests/commands/test_guard.py` compares them with GUARDS
_PAIRS_HELP = (
    "a pairs folder, JSON lines with unsafe_prompt and safe_prompt, CoProV2's CSV, CoPro's JSON, or .txt "
    "with lines `concept | unsafe prompt | safe prompt`"
)
_CAPTIONS_HELP = (
    "for an interpreter: prompts of every kind, not filtered, .csv, .jsonl, .json or .txt; repeatable"
)
_WORDS_HELP = "your blocked words, a .txt with one a line; only for interpreters, and never stored"
_PART_HELP = "part of CoPro's JSON: ID_train_data, ID_test_data or OOD_test_data"
_HARMLESS_HELP = (
    "a prompt set whose neutral prompts must not be blocked, .csv, .jsonl, .json or .txt; repeatable "
    "(default: the everyday prompts that come with the pack)"
)
log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of `guard` and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, (summary, add_options) in _ACTIONS.items():
        options = actions.add_parser(name, help=summary, description=f"{summary}.")
        add_options(options)
        add_json(options)


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_sources(parser, "ID_train_data", has_pairs=False)
    add = parser.add_argument
    kind_help = "concept is Latent Guard, interpreter is GuardT2I (default: %(default)s)"
    add("--kind", choices=KINDS, default=CONCEPT, help=kind_help)
    add("--captions", type=Path, action="append", default=[], metavar="P", help=_CAPTIONS_HELP)
    size_help = f"of an interpreter: {option_help(InterpretConfig, 'size')} (default: %(default)s)"
    add("--size", choices=(SMALL, BASE), default=InterpretConfig.size, help=size_help)
    add("--out", type=new_expert, required=True, metavar="FILE", help="the new .safetensors file")
    cache_help = "folder to keep encoded prompts in, so that a stopped run encodes none again"
    add("--cache", type=Path, metavar="DIR", help=cache_help)
    add_config_options(parser, GuardConfig, {})
    parser.set_defaults(run=_train)


def _add_test(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("guard", type=Path, metavar="FILE", help="the guard")
    _add_sources(parser, "ID_test_data", has_pairs=True)
    threshold_help = "scores from it on are blocked (default: that of the guard)"
    add("--threshold", type=float, metavar="X", help=threshold_help)
    add("--words", type=Path, metavar="FILE", help=_WORDS_HELP)
    parser.set_defaults(run=_test)


def _add_sources(parser: argparse.ArgumentParser, part: str, *, has_pairs: bool) -> None:
    add = parser.add_argument
    base_help = "the base model whose CLIP reads the prompts, see train; not needed for the sentence encoder"
    add("--base", type=Path, metavar="B", help=base_help)
    add("--pairs", type=Path, required=has_pairs, metavar="P", help=_PAIRS_HELP)
    add("--part", default=part, metavar="NAME", help=f"{_PART_HELP} (default: %(default)s)")
    add("--harmless", type=Path, action="append", default=[], metavar="P", help=_HARMLESS_HELP)
    add("--device", default="auto", help="where the encoder runs, such as cpu or cuda:1 (default: auto)")


_ACTIONS = {  # name -> summary, and what declares its options
    "train": ("Train a guard on unsafe prompts and their safe twins, and set its threshold", _add_train),
    "test": ("Measure a guard on prompts that it was not trained on", _add_test),
}


def add_guard_options(parser: argparse.ArgumentParser) -> None:
    """Add --guard and --guard-threshold, for commands that put a guard in front of the models."""
    add = parser.add_argument
    guard_help = "a prompt guard: every model is also measured behind it; what it blocks is not drawn"
    threshold_help = "scores from it on are blocked (default: that of the guard)"
    add("--guard", type=Path, metavar="FILE", help=guard_help)
    add("--guard-threshold", type=float, metavar="X", help=threshold_help)
    add("--guard-words", type=Path, metavar="FILE", help=_WORDS_HELP)


def guard_in_front(args: argparse.Namespace, base: BaseModel, device: torch.device | str) -> Guard | None:
    """Return the guard of `add_guard_options`, bound to a base model; None if none is given.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is damaged, or was trained for another text encoder.
    """
    if args.guard is None:
        return None
    from ..guards import clip_encoder, open_guard, sentence_encoder  # late: --help needs no torch

    encoders = {
        "clip": lambda: clip_encoder(base.text_encoder),
        "sentence": lambda: sentence_encoder(device),
    }
    return _blocking(open_guard(args.guard, encoders).at(args.guard_threshold), args.guard_words)


def prompt_filter(
    args: argparse.Namespace, base: BaseModel, device: torch.device | str
) -> PromptFilter | None:
    """Return the guard of `guard_in_front` as a benchmark asks it; None if none is given."""
    from ..evaluation.benchmark.guarded import PromptFilter  # late, as above

    guard = guard_in_front(args, base, device)
    if guard is None:
        return None
    facts = guard_facts(args, guard)
    return PromptFilter(args.guard.name, facts["guard"], lambda prompt: guard.look(prompt).blocked, facts)


def _blocking(guard: Guard, path: Path | None) -> Guard:
    """Return an interpreter with the person's blocked words; other guards without, and refuse words."""
    from ..evaluation.blocked_words import read_blocked_words  # late, as above
    from ..guards import Interpreter

    if path is None:
        return guard
    if not isinstance(guard, Interpreter):
        raise ValueError(
            f"{path.name}: blocked words are for interpreters, and this guard looks for concepts. Leave the "
            "words out, or train a guard of the kind `interpreter`."
        )
    return guard.blocking(read_blocked_words(path).terms)


def guard_facts(args: argparse.Namespace, guard: Guard) -> dict[str, Any]:
    """Return what identifies a guard: the hash of its file with its threshold, and the threshold alone."""
    from ..evaluation.optional import model_hash  # late, as above

    words = f" with words {model_hash(args.guard_words)}" if args.guard_words else ""
    name = f"{model_hash(args.guard)} at {guard.threshold:g}{words}"
    return {"guard": name, "guard_threshold": guard.threshold}


def guard_of(
    path: Path, base: Path | None, device: torch.device | str, threshold: float | None = None
) -> Guard:
    """Return the guard of a file, bound to the text encoder that it reads.

    Args:
        path: the file.
        base: the base model, for guards that read its CLIP.
        device: where the encoder runs.
        threshold: another than the file's; None keeps it.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if the guard is damaged, or was trained for another encoder.
    """
    from ..guards import open_guard  # late: --help needs no torch

    encoders = {kind: lambda kind=kind: _encoder(kind, base, device) for kind in ("clip", "sentence")}
    return open_guard(path, encoders).at(threshold)


def _train(args: argparse.Namespace) -> Answer:
    return _train_interpreter(args) if args.kind == INTERPRETER else _train_concept(args)


def _train_interpreter(args: argparse.Namespace) -> Answer:
    from ..guards import language  # late, as above
    from ..guards.train_interpreter import train_interpreter

    if not args.captions:
        raise ValueError("an interpreter is trained on prompts of every kind. Give them with --captions.")
    config = config_from(args, InterpretConfig)
    captions, harmless = _prompts(args.captions), _prompts(args.harmless)
    spoken, encoder = language(), _encoder("clip", args.base, device_of(args.device))
    with ProgressBar("encode") as bar:
        trained = train_interpreter(
            captions, encoder, spoken, config, harmless=harmless, cache=args.cache, on_progress=bar.stage
        )
    trained.guard.file().write(args.out)
    facts = {
        "out": str(args.out),
        "captions": trained.num_captions,
        "dropped_by_rule": trained.dropped,
        "first_loss": trained.losses[0],
        "last_loss": trained.losses[-1],
        "calibration": trained.guard.calibration.facts(),
        "held_out": trained.guard.facts["held_out"],
    }
    return Answer(f"{trained.report()}\nsaved as {args.out}", facts)


def _train_concept(args: argparse.Namespace) -> Answer:
    from ..guards import save_guard  # late, as above
    from ..guards.concept_data import read_concepts
    from ..guards.train_concept import train_concept_guard

    if args.pairs is None:
        raise ValueError(
            "a guard of the kind `concept` is trained on pairs of prompts. Give them with --pairs."
        )
    config = config_from(args, GuardConfig)
    data = read_concepts(args.pairs, args.part)
    log.info(data.report())
    harmless = _harmless(args.harmless)
    encoder = _encoder(config.encoder, args.base, device_of(args.device))
    with ProgressBar("encode") as bar:
        trained = train_concept_guard(
            data, encoder, config, harmless=harmless, cache=args.cache, on_progress=bar.stage
        )
    save_guard(trained.guard, args.out)
    facts = {
        "out": str(args.out),
        "concepts": len(trained.guard.concepts),
        "rows": len(data.rows),
        "dropped": {reason: len(names) for reason, names in data.dropped.items()},
        "first_loss": trained.losses[0],
        "last_loss": trained.losses[-1],
        "calibration": trained.guard.calibration.facts(),
        "held_out": trained.guard.facts["held_out"],
        "unseen_concepts": trained.guard.facts["unseen_concepts"],
    }
    return Answer(f"{trained.report()}\nsaved as {args.out}", facts)


def _test(args: argparse.Namespace) -> Answer:
    from ..guards.concept_data import read_concepts  # late, as above
    from ..guards.measure_guard import measure_guard

    guard = guard_of(args.guard, args.base, device_of(args.device), args.threshold)
    guard = _blocking(guard, args.words)
    data = read_concepts(args.pairs, args.part)
    with ProgressBar("test") as bar:
        result = measure_guard(guard, data.rows, _harmless(args.harmless), on_progress=bar)
    facts = {"guard": str(args.guard), "threshold": guard.threshold, **result.facts()}
    return Answer("\n".join([guard.describe(), data.report(), result.report()]), facts)


def _encoder(kind: str, base: Path | None, device: torch.device | str) -> GuardEncoder:
    from ..guards import clip_encoder, sentence_encoder  # late, as above
    from ..models.base_model import load_base

    if kind == "sentence":
        return sentence_encoder(device)
    if base is None:
        raise ValueError("the encoder `clip` reads prompts with the CLIP of a model. Give it with --base.")
    return clip_encoder(load_base(base).text_encoder_alone_to(device).text_encoder)


def _harmless(paths: Sequence[Path]) -> list[str]:
    from ..pairs.everyday import everyday_prompts  # late, as above

    return _prompts(paths) or list(everyday_prompts())


def _prompts(paths: Sequence[Path]) -> list[str]:
    """Return the prompts of prompt sets, without those that the rule on minors forbids."""
    from ..evaluation.prompt_sets import load_prompt_set  # late, as above

    sets: list[Any] = [load_prompt_set(path, category="neutral") for path in paths]
    return [prompt.prompt for prompt_set in sets for prompt in prompt_set.prompts]
