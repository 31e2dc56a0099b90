"""Command `judge`: train a safety cost model on your own pairs, and measure one on other pairs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import CostConfig
from .options import add_config_options, add_json, config_from, device_of, new_expert
from .output import Answer, ProgressBar, read_pairs

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..evaluation.cost_model import ImageEncoder
    from ..evaluation.judge import Embed
    from ..models.autoencoder import Autoencoder
    from ..pairs import SafetyPairs

_PAIRS_HELP = "pairs in any layout that train reads; repeatable"
_BASE_HELP = "a base model, whose VAE turns pictures into latents that the judge reads"
_CLIP_HELP = "a CLIP model of transformers, whose image embeddings the judge reads, in place of --base"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of `judge` and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, (summary, add_options) in _ACTIONS.items():
        options = actions.add_parser(name, help=summary, description=f"{summary}.")
        add_options(options)
        _add_sources(options)
        add_json(options)


def _add_train(parser: argparse.ArgumentParser) -> None:
    out_help = "the new file; safety_cost.safetensors is the name that --judge-heads DIR looks for"
    parser.add_argument("--out", type=new_expert, required=True, metavar="FILE", help=out_help)
    add_config_options(parser, CostConfig, {})
    parser.set_defaults(run=_train)


def _add_test(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("judge", type=Path, metavar="FILE", help="the judge")
    parser.set_defaults(run=_test)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--pairs", type=Path, action="append", required=True, metavar="P", help=_PAIRS_HELP)
    add("--base", type=Path, metavar="B", help=_BASE_HELP)
    add("--clip-vision", type=Path, metavar="DIR", help=_CLIP_HELP)
    add("--device", default="auto", help="where the encoder runs, such as cpu or cuda:1 (default: auto)")


_ACTIONS = {  # name -> summary, and what declares its options
    "train": ("Train a judge of pictures on your own pairs (a safety cost model, after SC-DPO)", _add_train),
    "test": ("Measure such a judge on pairs; those it was trained on are scored held out", _add_test),
}


def vae_latents(base: Path, device: torch.device | str) -> Embed:
    """Return a function from images (n, 3, h, w) in [0, 1] to latents of a base model's VAE.

    The model is read at the first call, because most judges need none.

    Args:
        base: checkpoint or diffusers folder.
        device: where the VAE runs.
    """
    from functools import cache  # late, with what follows: --help needs no torch

    from ..models.base_model import load_base

    @cache
    def autoencoder() -> Autoencoder:
        return load_base(base).encoders_to(device).autoencoder

    def latents(images: Tensor) -> Tensor:
        vae = autoencoder()
        return vae.encode(images.to(device) * 2 - 1)

    return latents


def _train(args: argparse.Namespace) -> Answer:
    from ..evaluation.train_cost import train_cost  # late, as above

    pairs, encoder = _pairs(args), _encoder(args)
    with ProgressBar("encode") as bar:
        trained = train_cost(pairs, encoder, config_from(args, CostConfig), on_progress=bar.stage)
    trained.model.write(args.out)
    facts = {
        "out": str(args.out),
        "pairs": len(pairs.pairs),
        "scenes": trained.num_scenes,
        "encoder": encoder.kind,
        "categories": list(trained.model.categories),
        "held_out": trained.held_out.facts(),
    }
    return Answer(f"{trained.report()}\nsaved as {args.out}", facts)


def _test(args: argparse.Namespace) -> Answer:
    from ..evaluation.cost_figures import measure_cost  # late, as above
    from ..evaluation.cost_model import read_cost_model

    pairs, encoder = _pairs(args), _encoder(args)
    model = read_cost_model(args.judge, {encoder.kind: encoder})
    with ProgressBar("test") as bar:
        figures = measure_cost(model, pairs, on_progress=bar)
    facts = {"judge": str(args.judge), "weights": model.id(), "encoder": encoder.kind, **figures.facts()}
    return Answer(f"{args.judge.name}, embedding: {encoder.kind}\n{figures.report()}", facts)


def _pairs(args: argparse.Namespace) -> SafetyPairs:
    from ..pairs.pair import joined  # late, as above

    return joined([read_pairs(path) for path in args.pairs])


def _encoder(args: argparse.Namespace) -> ImageEncoder:
    from ..evaluation.cost_model import CLIP_VISION, ImageEncoder, latent_encoder  # late, as above
    from ..evaluation.judges.clip_vision import load_clip_vision

    if (args.base is None) == (args.clip_vision is None):
        raise ValueError(
            "a safety cost model reads either latents of a VAE or CLIP image embeddings. Give one of --base "
            "and --clip-vision."
        )
    device = device_of(args.device)
    if args.clip_vision:
        return ImageEncoder(CLIP_VISION, load_clip_vision(args.clip_vision, device))
    return latent_encoder(vae_latents(args.base, device))
