"""Command `train`: encode pairs, and train an expert on them."""

from __future__ import annotations

import argparse
import gc
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ..config import PRESET_HELP, PRESETS, TrainConfig, preset_text, preset_values
from ..experts.expert import SafetyExpert
from ..losses import LOSSES
from ..models import Family
from ..models.base_model import load_base
from ..pairs import SafetyPairs, load_pairs
from ..pairs.encode import Encoders, encode_pairs
from ..pairs.training_data import TrainingData
from ..system.processes import Processes, launched_processes
from ..system.quantities import duration
from ..trainer.kept import everyday_of
from ..trainer.plan import place_unet
from ..trainer.result import TrainResult
from ..trainer.run import Callbacks, autocast_dtype
from ..trainer.train_expert import Destination, Subject, train_expert
from .options import add_config_options, add_json, add_model_options, config_from, device_of, new_expert
from .output import Answer, ProgressBar, expert_facts
from .pairs import SOURCE_HELP

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `train`."""
    add = parser.add_argument
    base_help = "the base model: a .safetensors checkpoint, or a folder of diffusers"
    cache_help = (
        "folder to keep encoded images and prompts in for the next run; training reads them from there, so "
        "they need not fit in memory"
    )
    run_help = (
        "folder for the resume state and the metrics of every step (default: FILE with _run as its ending)"
    )
    add("--base", type=Path, required=True, metavar="B", help=base_help)
    add("--pairs", type=Path, required=True, metavar="P", help=SOURCE_HELP)
    add("--category", metavar="C", help="train on the pairs of this category (default: on all)")
    add("--max-pairs", type=int, default=0, metavar="N", help="use the first N pairs; 0 is all (default: 0)")
    add("--out", type=new_expert, required=True, metavar="FILE", help="the new .safetensors file")
    add("--run-dir", type=Path, metavar="DIR", help=run_help)
    add("--resume", action="store_true", help="continue from the newest state in the run folder, if any")
    add("--cache", type=Path, metavar="DIR", help=cache_help)
    add_model_options(parser)
    add_json(parser)
    preset_help = f"{PRESET_HELP} Options given explicitly take precedence (default: custom)"
    add("--preset", choices=tuple(PRESETS), default="custom", help=preset_help)
    add_config_options(parser, TrainConfig, {"objective": LOSSES}, has_presets=True)
    parser.set_defaults(run=_run)


class _Prepared(NamedTuple):
    """What training needs of the base model and the pairs; the UNet is as it was loaded."""

    unet: nn.Module
    family: Family
    base_hash: str
    data: TrainingData


def _run(args: argparse.Namespace) -> Answer | None:
    with launched_processes() as processes:
        if not processes.is_first:
            library = logging.getLogger(__package__.partition(".")[0])
            library.setLevel(logging.WARNING)  # only the main process logs
        return _run_in(processes, args)


def _run_in(processes: Processes, args: argparse.Namespace) -> Answer | None:
    config = config_from(args, TrainConfig, preset_values(args.preset))
    device = device_of(args.device)
    pairs = load_pairs(args.pairs, category=args.category, max_pairs=args.max_pairs)
    log.info(pairs.report.text())
    if args.preset != "custom":
        log.info("%s; options given explicitly take precedence", preset_text(args.preset))
    with processes.first_goes_first() if args.cache else nullcontext():
        prepared = _prepare(args, pairs, config, device, shown=processes.is_first)
    gc.collect()  # modules can be in reference cycles, and the memory of the encoders is needed now
    if device.type == "cuda":
        torch.cuda.empty_cache()
    # only now, so that the device never holds it beside the encoders, nor in fp32 unless that is asked for
    place_unet(prepared.unet, device, autocast_dtype(config.precision, device))
    start_s = time.perf_counter()
    expert, result = _train(args, pairs, config, prepared, processes)
    if not processes.is_first:
        return None
    return _answer(args.out.with_name(expert.name), expert, result, pairs, time.perf_counter() - start_s)


def _prepare(
    args: argparse.Namespace, pairs: SafetyPairs, config: TrainConfig, device: torch.device, *, shown: bool
) -> _Prepared:
    base = load_base(args.base).encoders_to(device)
    base.warn_of_long(pairs.prompts)
    with _interrupt_noted(args.cache, "encoded data is kept in"), ProgressBar("encode", shown=shown) as bar:
        data = encode_pairs(
            pairs,
            Encoders(base.encode_image, base.encode_prompt, base.encoder_id),
            resolution=args.resolution,
            mirrored=config.flip > 0,
            bucketed=config.buckets,
            everyday=everyday_of(config),
            cache_dir=args.cache,
            on_progress=bar,
        )
    return _Prepared(base.unet, base.family, base.content_hash, data)  # hashed before its weights are rounded


def _train(
    args: argparse.Namespace,
    pairs: SafetyPairs,
    config: TrainConfig,
    prepared: _Prepared,
    processes: Processes,
) -> tuple[SafetyExpert, TrainResult]:
    category = args.category or ", ".join(pairs.categories)
    run_dir = args.run_dir or args.out.with_name(f"{args.out.stem}_run")
    hint = "the same command with --resume continues from"
    with _interrupt_noted(run_dir / "state", hint), ProgressBar("train", shown=processes.is_first) as bar:
        return train_expert(
            prepared.unet,
            prepared.data,
            prepared.family.schedule(),
            config,
            subject=Subject(category, prepared.family.name, prepared.base_hash),
            destination=Destination(args.out, run_dir, args.resume),
            callbacks=Callbacks(on_progress=bar),
            processes=processes,
        )


@contextmanager
def _interrupt_noted(folder: Path | None, hint: str) -> Iterator[None]:
    """On Ctrl-C, log the hint with the folder, unless the folder is empty."""
    try:
        yield
    except KeyboardInterrupt:
        if folder and any(folder.glob("*")):
            log.info("%s %s", hint, folder)
        raise


def _answer(
    out: Path, expert: SafetyExpert, result: TrainResult, pairs: SafetyPairs, seconds: float
) -> Answer:
    first, last = result.losses[0], result.losses[-1]
    lines = [
        expert.report(),
        f"plan: {result.plan.text()}",
        f"{result.steps_done} steps, loss {first:.4g} -> {last:.4g}, {duration(seconds)}",
        f"held-out pairs: {result.validation_text()}",
        f"kept: {result.kept_text()}",
        f"saved as {out}",
    ]
    facts = {
        "out": str(out),
        "steps": result.steps_done,
        "seconds": round(seconds, 3),
        "first_loss": first,
        "metrics": result.metrics,
        "validations": result.validations,
        "plan": result.plan._asdict(),
        "pairs": pairs.report.facts(),
        "expert": expert_facts(expert),
    }
    return Answer("\n".join(lines), facts)
