"""Command `merge`: merge several experts into one."""

import argparse
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, partial
from pathlib import Path

from torch import Tensor

from ..config import MAX_STRENGTH, MergeConfig
from ..experts.expert import check_family, open_expert, save_expert
from ..experts.low_rank import LowRank
from ..merging import (
    MERGE_METHODS,
    BaseNetwork,
    CalibrationInputs,
    CalibrationPrompts,
    Distilled,
    Members,
    Statistics,
    StatisticsStore,
    calibrated_methods,
    calibration_prompts,
    collect_statistics,
    distill,
    listed_prompts,
    merge_experts,
    plain_methods,
)
from ..models.base_model import BaseModel, load_base
from ..models.conditioning import LATENT_STEP, Conditioning
from ..pairs.encode import Encoders, encode_pictures
from ..pairs.folder import PAIRS_FILE
from ..pairs.prompts import parse_prompts
from ..system.texts import read_text_file
from .options import (
    add_config_options,
    add_family,
    add_json,
    add_model_options,
    config_from,
    device_of,
    new_expert,
)
from .output import Answer, ProgressBar, expert_facts, read_pairs

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `merge`."""
    add = parser.add_argument
    strength_help = (
        f"weight of an expert, 0 to {MAX_STRENGTH:g}; once per expert, in their order (default: 1 for all)"
    )
    calibration_help = (
        "prompts on which the experts are compared: a folder that holds pairs.jsonl, a folder of such "
        "folders, or a text file with one prompt per line; use pairs, or unsafe prompts, of every category; "
        "where there are no neutral prompts, regmean takes everyday prompts that come with the pack"
    )
    only_for = f"only for {calibrated_methods()}"
    add("experts", nargs="+", type=Path, metavar="E", help="the experts' .safetensors files")
    add("--strength", action="append", type=float, metavar="X", help=strength_help)
    add("--base", type=Path, metavar="B", help=f"the experts' base model, as for train; {only_for}")
    add("--calibration", type=Path, metavar="P", help=f"{calibration_help}; {only_for}")
    add(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder for encoded pictures and calibration results, which serve other ranks and strengths too",
    )
    add("--out", type=new_expert, required=True, metavar="FILE", help="the new .safetensors file")
    add_family(parser)
    add_model_options(parser)
    add_json(parser)
    add_config_options(parser, MergeConfig, {"method": MERGE_METHODS})
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> Answer:
    config = config_from(args, MergeConfig)
    with ExitStack() as files, ProgressBar("merge") as bar:
        experts = [
            files.enter_context(open_expert(path, assumed_family=args.family)) for path in args.experts
        ]
        calibration = _Calibration(args, config, bar)
        merged = merge_experts(
            experts,
            config,
            strengths=args.strength,
            calibrate=calibration.statistics,
            distilled=calibration.distilled,
            on_progress=partial(bar.stage, "merge"),
        )
    save_expert(merged, args.out)
    facts = {"out": str(args.out), "expert": expert_facts(merged)}
    return Answer(f"{merged.report()}\nsaved as {args.out}", facts)


class _Calibration:
    """The base model and its calibration prompts, read only if the merge asks for them."""

    def __init__(self, args: argparse.Namespace, config: MergeConfig, bar: ProgressBar) -> None:
        self._args, self._config, self._bar = args, config, bar

    def statistics(self, members: Members) -> Statistics:
        """Return the statistics of the members."""
        args = self._args
        if not (args.base and args.calibration):
            raise ValueError(
                f"{self._config.method} compares the experts on their base model, so it needs --base and "
                f"--calibration. Add them, or set --method to one of {plain_methods()}."
            )
        for expert, _ in members:
            check_family(expert, self._base.family.name, self._base.family.text_width)
        network, inputs = self._network
        return collect_statistics(
            network,
            inputs,
            members,
            self._config,
            store=args.cache and StatisticsStore(args.cache),
            on_progress=partial(self._bar.stage, "calibrate"),
        )

    def distilled(self, members: Members, layers: Mapping[str, LowRank]) -> Distilled:
        """Train the merged layers on what the members predict."""
        on_progress = partial(self._bar.stage, "distill")
        return distill(*self._network, members, layers, self._config, on_progress=on_progress)

    @cached_property
    def _base(self) -> BaseModel:
        return load_base(self._args.base)

    @cached_property
    def _network(self) -> tuple[BaseNetwork, CalibrationInputs]:
        base, device = self._base, device_of(self._args.device)
        chosen = read_calibration(self._args.calibration, self._config)
        base_hash = base.content_hash  # before the pass, and where the weights still are
        base.encoders_to(device)
        prompts = dict.fromkeys(chosen.prompts)
        base.warn_of_long(prompts)
        embeds = {prompt: base.encode_prompt(prompt) for prompt in prompts}
        latents = chosen.pictures and _encoded(self._args, self._bar, base, chosen.pictures)
        base.unet_alone_to(device)
        side = self._args.resolution // LATENT_STEP
        inputs = CalibrationInputs(
            Conditioning.concatenate([embeds[prompt] for prompt in chosen.prompts]),
            (base.family.latent_channels, side, side),
            chosen.categories,
            latents,
            neutral=chosen.neutral,
        )
        return BaseNetwork(base.unet, base.schedule, base_hash), inputs


def _encoded(
    args: argparse.Namespace, bar: ProgressBar, base: BaseModel, pictures: Sequence[Sequence[Path]]
) -> list[list[Tensor]]:
    return encode_pictures(
        pictures,
        Encoders(base.encode_image, base.encode_prompt, base.encoder_id),
        resolution=args.resolution,
        cache_dir=args.cache,
        on_progress=partial(bar.stage, "encode"),
    )


def read_calibration(path: Path, config: MergeConfig) -> CalibrationPrompts:
    """Read the calibration prompts of a pairs folder, of a folder of pairs folders, or of a text file.

    Args:
        path: folder, or text file with one prompt per line.
        config: prompts_per_category, and the method, which may need neutral prompts.

    Raises:
        FileNotFoundError: if the path does not exist.
        ValueError: if it holds no prompt.
    """
    if path.is_dir():
        folders = sorted(folder for folder in path.iterdir() if (folder / PAIRS_FILE).is_file())
        if (path / PAIRS_FILE).is_file() or not folders:
            folders = [path]
        sources = [read_pairs(folder) for folder in folders]
        neutral = [(sample.prompt, sample.image) for source in sources for sample in source.neutral]
        return calibration_prompts([pair for source in sources for pair in source.pairs], config, neutral)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist. Name a pairs folder or a text file of prompts.")
    try:
        parsed = parse_prompts(read_text_file(path))
    except ValueError as error:  # also a file that is not text
        raise ValueError(f"{path.name} cannot be used for calibration: {error}") from error
    if parsed.num_dropped:
        log.info("%d lines of %s were dropped by the rule on minors", parsed.num_dropped, path.name)
    return listed_prompts(parsed, config)
