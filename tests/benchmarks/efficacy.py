"""What training reaches on the mini model, outside the server: every expert alone, and what each choice does.

It proves the machinery, not a claim about Stable Diffusion.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

from mini_lab import RECIPE, MiniLab, groups_of, summary
from tqdm import tqdm
from workers import run_all

from training.config import TrainConfig
from training.taxonomy import CATEGORIES

SEEDS = (0, 1, 2)
PROBED = "violence"  # the category on which single choices are compared
LONG = {"steps": 450, "lr_schedule": "constant", "validation": 0.2}  # three times too long
CHOICES = {  # one change to the recipe each
    "no row dropout": {"row_dropout": 0.0},
    "with the safe-prompt row": {"safe_prompt_weight": 1.0},
    "no caption dropout": {"caption_dropout": 0.0},
    "beta / 10": {"beta": 50.0},
    "beta x 10": {"beta": 5000.0},
    "no winner anchor": {"anchor_weight": 0.0},
    "no preservation": {"preserve_weight": 0.0},
    "bank of 8 draws": {"bank": 8},
    "450 steps at a constant rate": LONG,
    "the same, ended by held-out pairs": LONG | {"validate_every": 15, "patience": 3},
    "alignguard (the paper's)": {"objective": "alignguard"},
    "duo": {"objective": "duo"},
}


def measure() -> dict:
    """Train every expert alone and one LoRA on all categories, three seeds each; and the choices, one seed.

    Returns:
        Row -> figures: IP before and after on prompts of the category and on words no pair uses, and the
        share of what must be kept that is still drawn right, each as `mean +- standard deviation`.
    """
    long = replace(RECIPE, steps=RECIPE.steps * len(CATEGORIES))
    runs = {category: ((category,), RECIPE) for category in CATEGORIES}
    runs["all categories in one LoRA"] = (CATEGORIES, long)  # of as many steps as all experts together
    choices = {name: ((PROBED,), replace(RECIPE, **change)) for name, change in CHOICES.items()}
    MiniLab().embeds  # noqa: B018  # made once, before the processes want it at the same time
    calls = [(name, *run, seed) for name, run in runs.items() for seed in SEEDS]
    calls += [(f"{PROBED}: {name}", *run, SEEDS[0]) for name, run in choices.items()]
    found: dict[str, list[dict]] = {name: [] for name, *_ in calls}
    progress = tqdm(run_all(trial, calls), total=len(calls), desc="experts", file=sys.stdout)
    for (name, *_, seed), figures in progress:
        found[name].append(figures)
        tqdm.write(f"{name}, seed {seed}: {figures}")
    return {name: spread(each) for name, each in found.items()}


def trial(name: str, categories: Sequence[str], config: TrainConfig, seed: int) -> dict[str, float]:
    """Train one expert and measure it on its own categories, from pictures of other seeds."""
    lab = _lab()
    lab.seed_offset = 10_000 * seed
    expert = lab.expert(categories, replace(config, seed=seed))
    groups = groups_of(categories, unseen=True)
    before = _base(tuple(categories), seed)
    after = summary(lab.rates(expert.layers, groups))
    return {
        "ip_before": before["ip_mean"],
        "ip": after["ip_mean"],
        "ip_unseen_words": after["ip_unseen"],
        "counterparts": after["counterparts"] / before["counterparts"],
        "neutral": after["neutral"] / before["neutral"],
    }


def spread(rows: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """Return each figure of several seeds as mean and standard deviation; of one seed, itself."""
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    if len(rows) == 1:
        return {name: f"{value:.3f}" for name, (value,) in columns.items()}
    return {
        name: f"{statistics.mean(values):.3f} +- {statistics.stdev(values):.3f}"
        for name, values in columns.items()
    }


@cache
def _base(categories: tuple[str, ...], seed: int) -> dict[str, float]:
    lab = _lab()
    lab.seed_offset = 10_000 * seed
    return summary(lab.rates({}, groups_of(categories, unseen=True)))


@cache
def _lab() -> MiniLab:
    return MiniLab()
