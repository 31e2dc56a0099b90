"""Command `merge`: several experts to one."""

import argparse
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from torch import Tensor

from ..config import MergeConfig
from ..experts.expert import SafetyExpert, check_family, open_expert, save_expert
from ..merging import (
    MERGE_METHODS,
    CalibrationPrompts,
    Statistics,
    StatisticsStore,
    calibrated_methods,
    calibration_prompts,
    collect_statistics,
    merge_experts,
)
from ..models.base_model import BaseModel, load_base
from ..models.conditioning import LATENT_STEP, Conditioning
from ..pairs import load_pairs
from ..pairs.encode import encode_pictures
from ..pairs.folder import PAIRS_FILE
from ..pairs.prompts import parse_prompts
from .answer import Answer, expert_facts
from .options import add_config_options, add_json, add_model_options, config_from, device_of, new_expert
from .progress import ProgressBar

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `merge`."""
    add = parser.add_argument
    strength_help = "weight of an expert, 0 to 2; once per expert, in their order (default: 1 for all)"
    calibration_help = (
        "prompts the experts are compared on: a folder that holds pairs.jsonl, a folder of such folders, or "
        "a text file with one prompt a line; use pairs, or unsafe prompts, of every category"
    )
    needed = calibrated_methods()
    add("experts", nargs="+", type=Path, metavar="E", help="the experts' .safetensors files")
    add("--strength", action="append", type=float, metavar="X", help=strength_help)
    add("--base", type=Path, metavar="B", help=f"the experts' base model, see train; only for {needed}")
    add("--calibration", type=Path, metavar="P", help=f"{calibration_help}; only for {needed}")
    add(
        "--cache",
        type=Path,
        metavar="DIR",
        help="keep encoded pictures, and what calibration found for other ranks and strengths, here",
    )
    add("--out", type=new_expert, required=True, metavar="FILE", help="the new .safetensors file")
    add_model_options(parser)
    add_json(parser)
    add_config_options(parser, MergeConfig, {"method": MERGE_METHODS})
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> Answer:
    config = config_from(args, MergeConfig)
    with ExitStack() as files:
        experts = [files.enter_context(open_expert(path)) for path in args.experts]
        merged = _merge(args, config, experts)
    save_expert(merged, args.out)
    facts = {"out": str(args.out), "expert": expert_facts(merged)}
    return Answer(f"{merged.report()}\nsaved as {args.out}", facts)


def _merge(args: argparse.Namespace, config: MergeConfig, experts: Sequence[SafetyExpert]) -> SafetyExpert:
    statistics = None
    if MERGE_METHODS[config.method].needs_statistics and args.base and args.calibration:
        statistics = _calibrate(args, config, experts)
    with ProgressBar("merge") as bar:
        return merge_experts(experts, config, strengths=args.strength, statistics=statistics, on_progress=bar)


def _calibrate(args: argparse.Namespace, config: MergeConfig, experts: Sequence[SafetyExpert]) -> Statistics:
    prompts, categories, pictures = read_calibration(args.calibration, config)
    base = load_base(args.base)
    for expert in experts:
        check_family(expert, base.family.name, base.family.text_width)
    base_hash = base.content_hash  # before the pass, and where the weights still are
    base.encoders_to(device_of(args.device))
    base.warn_of_long(dict.fromkeys(prompts))
    embeds = {prompt: base.encode_prompt(prompt) for prompt in dict.fromkeys(prompts)}
    latents = pictures and _encoded(args, base, pictures)
    base.unet_alone_to(device_of(args.device))
    side = args.resolution // LATENT_STEP
    with ProgressBar("calibrate") as bar:
        return collect_statistics(
            base.unet,
            base.schedule,
            experts,
            Conditioning.concatenate([embeds[prompt] for prompt in prompts]),
            config,
            latent_shape=(base.family.latent_channels, side, side),
            strengths=args.strength,
            categories=categories,
            pictures=latents,
            base_hash=base_hash,
            store=args.cache and StatisticsStore(args.cache, base_hash),
            on_progress=bar,
        )


def _encoded(
    args: argparse.Namespace, base: BaseModel, pictures: Sequence[Sequence[Path]]
) -> list[list[Tensor]]:
    with ProgressBar("encode") as bar:
        return encode_pictures(
            pictures,
            encode_image=base.encode_image,
            encoder_id=base.encoder_id,
            resolution=args.resolution,
            cache_dir=args.cache,
            on_progress=bar,
        )


def read_calibration(path: Path, config: MergeConfig) -> CalibrationPrompts:
    """Read the calibration prompts of a pairs folder, of a folder of pairs folders, or of a text file.

    Args:
        path: folder, or text file in UTF-8 with one prompt a line.
        config: for folders, prompts_per_category, and the method decides whether neutral prompts are needed.

    Raises:
        FileNotFoundError: if there is nothing at the path.
        ValueError: if it holds no prompt.
    """
    if path.is_dir():
        folders = sorted(each for each in path.iterdir() if (each / PAIRS_FILE).is_file())
        if (path / PAIRS_FILE).is_file() or not folders:
            folders = [path]
        sources = [load_pairs(folder) for folder in folders]
        neutral = [(sample.prompt, sample.image) for source in sources for sample in source.neutral]
        return calibration_prompts([pair for source in sources for pair in source.pairs], config, neutral)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist. Name a pairs folder or a text file of prompts.")
    try:
        found = parse_prompts(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # also text that is not UTF-8
        raise ValueError(f"{path.name} cannot be used for calibration: {error}") from error
    if found.num_dropped:
        log.info("%d lines of %s were dropped by the rule on minors", found.num_dropped, path.name)
    return CalibrationPrompts(found.prompts, found.categories)
