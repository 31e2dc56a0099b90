"""What each merge method leaves of seven experts, on the mini model outside the server.

It proves the machinery, not a claim about Stable Diffusion.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from efficacy import SEEDS, spread
from mini_lab import RECIPE, MiniLab, groups_of, joined, summary
from tqdm import tqdm
from workers import run_all

from training.config import MergeConfig
from training.low_rank import LowRank
from training.merging import MERGE_METHODS, calibration_prompts, collect_statistics, merge_experts
from training.taxonomy import CATEGORIES

LATENT_SHAPE = (4, 8, 8)
PROMPTS_PER_CATEGORY = 10  # as many as the pairs of a mini category have
RANKS = {"": 0, " at rank 4": RECIPE.rank}  # natural size, and that of one expert


def measure() -> dict:
    """Merge the seven experts by every method, at its own size and at that of one expert, three seeds.

    Returns:
        Row -> figures as mean and standard deviation: the worst and mean IP over the categories, IP on words
        no pair uses, the share of what must be kept that is drawn right, size and rank of the update.
    """
    lab = MiniLab()
    lab.embeds  # noqa: B018  # made once, before the processes want it at the same time
    experts = [((category,), seed) for category in CATEGORIES for seed in SEEDS]
    for _ in tqdm(run_all(train_one, experts), total=len(experts), desc="experts", file=sys.stdout):
        pass
    calls = [(method, name, seed) for method in MERGE_METHODS for name in RANKS for seed in SEEDS]
    calls += [("base", "", seed) for seed in SEEDS]
    found: dict[str, list[dict]] = {}
    for (method, size, seed), figures in tqdm(
        run_all(trial, calls), total=len(calls), desc="merges", file=sys.stdout
    ):
        found.setdefault(method + size, []).append(figures)
        tqdm.write(f"{method}{size}, seed {seed}: {figures}")
    return {name: spread(found[name]) for name in sorted(found)}


def train_one(categories: tuple[str, ...], seed: int) -> None:
    """Train an expert that the trials will find."""
    _lab().expert(categories, replace(RECIPE, seed=seed))


def trial(method: str, size: str, seed: int) -> dict[str, float]:
    """Merge by one method and measure the result, from pictures of other seeds."""
    lab = _lab()
    lab.seed_offset = 10_000 * seed
    layers = {} if method == "base" else merged(lab, method, RANKS[size], seed)
    rates = summary(lab.rates(layers, groups_of(num_prompts=4, kept_scenes=2, unseen=True)))
    norm = sum(layer.norm() ** 2 for layer in layers.values()) ** 0.5
    return {**rates, "norm": norm, "rank": max((layer.rank for layer in layers.values()), default=0)}


def merged(lab: MiniLab, method: str, output_rank: int, seed: int) -> Mapping[str, LowRank]:
    """Return the seven experts of a seed as one LoRA."""
    experts = [lab.expert((category,), replace(RECIPE, seed=seed)) for category in CATEGORIES]
    config = MergeConfig(
        method=method, output_rank=output_rank, prompts_per_category=PROMPTS_PER_CATEGORY, seed=seed
    )
    statistics = None
    if MERGE_METHODS[method].needs_statistics:
        pairs = joined([lab.pairs(category) for category in CATEGORIES])
        neutral = [sample.prompt for sample in pairs.neutral]
        chosen = calibration_prompts(pairs.pairs, config, neutral)
        statistics = collect_statistics(
            lab.unet,
            lab.schedule,
            experts,
            lab.calibration(chosen.prompts),
            config,
            latent_shape=LATENT_SHAPE,
            categories=chosen.categories,
            batch_size=16,
        )
    return merge_experts(experts, config, statistics=statistics).layers


@cache
def _lab() -> MiniLab:
    return MiniLab()
