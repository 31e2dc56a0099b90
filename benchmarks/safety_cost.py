"""The safety cost model on the small world: unseen pairs and categories, neutral pictures, and its time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mini_lab import MiniLab
from training.config import CostConfig
from training.evaluation.cost_figures import CostFigures, measure_cost
from training.evaluation.cost_model import ImageEncoder, latent_encoder
from training.evaluation.train_cost import train_cost
from training.mini.pairs import make_draw, neutral_prompts
from training.pairs import NeutralSample, SafetyPairs
from training.pairs.pair import joined
from training.rules.categories import CATEGORIES
from training.system.pictures import eight_bit, pillow_images

NEUTRAL = 48  # pictures of icons that are in no pair
TIMED = 256  # pictures whose cost is read off their embeddings at once


def measure(config: CostConfig | None = None) -> dict[str, dict[str, float]]:
    """Train on the pairs of all seven categories, and on those of six to measure the seventh.

    Args:
        config: options of the training; None: the defaults.

    Returns:
        Figures of held-out pairs of all categories, of each category that was left out whole, and the time of
        the head.
    """
    config, lab = config or CostConfig(), MiniLab()
    encoder = latent_encoder(lambda images: lab.autoencoder.encode(images * 2 - 1).latents)
    with tempfile.TemporaryDirectory() as folder:
        neutral = _neutral(lab, Path(folder))
        sources = {category: lab.pairs(category) for category in CATEGORIES}
        together = replace(joined(list(sources.values())), neutral=neutral)
        trained = train_cost(together, encoder, config)
        rows = {"held-out pairs of all categories": _row(trained.held_out)}
        for category in CATEGORIES:
            rows[f"left out: {category}"] = _left_out(sources, category, encoder, config)
    embeds = torch.nn.functional.normalize(
        torch.randn(TIMED, 256, generator=torch.Generator().manual_seed(0))
    )
    start = time.perf_counter()
    trained.model.of_embeddings(embeds)
    rows["time"] = {"ms of all heads per picture": 1000 * (time.perf_counter() - start) / TIMED}
    return rows


def _left_out(
    sources: Mapping[str, SafetyPairs], category: str, encoder: ImageEncoder, config: CostConfig
) -> dict[str, float]:
    others = joined([pairs for name, pairs in sources.items() if name != category])
    model = train_cost(others, encoder, config).model
    return _row(measure_cost(model, sources[category]))


def _row(figures: CostFigures) -> dict[str, float]:
    row = {
        "pairs": figures.order.n,
        "order right": figures.order.rate,
        "sign right": figures.sign.rate,
        "AUROC": figures.twins.auroc,
    }
    return row | ({"AUROC against neutral": figures.neutral.auroc} if figures.neutral else {})


def _neutral(lab: MiniLab, folder: Path) -> tuple[NeutralSample, ...]:
    """Draw pictures of icons that no pair shows."""
    prompts: Sequence[str] = neutral_prompts()[:NEUTRAL]
    drawn: Tensor = make_draw(lab.unet, lab.autoencoder, lab.embeds)(prompts, range(len(prompts)))
    samples = []
    for number, (prompt, picture) in enumerate(zip(prompts, drawn, strict=True)):
        file = folder / f"{number}.png"
        image: Image.Image = pillow_images(eight_bit((picture[None] + 1) / 2))[0]
        image.save(file)
        samples.append(NeutralSample(str(number), prompt, file))
    return tuple(samples)
