"""What training achieves on the mini model outside the server: each expert alone, and each choice.

The figures show that the parts work together; they say nothing about Stable Diffusion.
"""

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

from tqdm import tqdm

import plot
from mini_lab import RECIPE, MiniLab, groups_of, summary
from training.config import TrainConfig
from training.rules.categories import CATEGORIES
from workers import run_all

SEEDS = (0, 1, 2)
PROBED = "violence"  # the category on which single choices are compared
LONG = {"steps": 450, "lr_schedule": "constant", "validation": 0.2}  # three times too long
CHOICES = {  # row -> one change to the recipe
    "row dropout": {"row_dropout": 0.9},
    "no safe lead": {"anchor_weight": 0.0},
    "the paper's rank": {"rank": 4},
    "no preservation": {"preserve_weight": 0.0},
    "bank of 8 draws": {"bank": 8},
    "450 steps at a constant rate": LONG,
    "the same, ended by held-out pairs": LONG | {"validate_every": 15, "patience": 3},
    "the node's defaults": {
        name: getattr(TrainConfig(), name)
        for name in ("steps", "batch_size", "learning_rate", "safe_prompt_weight")
    },
}
SWEEPS = {  # option -> its values; one plot per option
    "safe_prompt_weight": (0.0, 0.5, 1.0),
    "caption_dropout": (0.0, 0.2, 0.5, 1.0),
    "beta": (50.0, 160.0, 500.0, 1600.0, 5000.0),  # about 500 is measured on the pairs
}
SHOWN = {  # column -> name of its line in a plot
    "ip": "IP",
    "ip_unseen_words": "IP, unseen words",
    "counterparts": "counterparts",
    "neutral": "neutral",
}


def measure() -> dict:
    """Train each expert alone, one LoRA on all categories, and the choices on one category; three seeds.

    Plots each option of `SWEEPS` into `demo_output/`.

    Returns:
        Row -> figures: IP before and after, for prompts of the category and for words that no pair uses, and
        the share of the prompts to be kept that are still drawn right, each as `mean +- standard deviation`.
    """
    long = replace(RECIPE, steps=RECIPE.steps * len(CATEGORIES))
    runs = {category: ((category,), RECIPE) for category in CATEGORIES}
    runs["all categories in one LoRA"] = (CATEGORIES, long)  # as many steps as all experts together
    results = measured(runs | {row: ((PROBED,), config) for row, config in choices().items()})
    for option, values in SWEEPS.items():
        draw_sweep(option, {value: results[row_of(option, value)] for value in values})
    return {row: spread(figures) for row, figures in results.items()}


def choices() -> dict[str, TrainConfig]:
    """Return recipes that differ from the default in one option, by row."""
    swept = {row_of(name, value): {name: value} for name, values in SWEEPS.items() for value in values}
    named = {f"{PROBED}: {name}": change for name, change in CHOICES.items()}
    return {row: replace(RECIPE, **change) for row, change in (named | swept).items()}


def row_of(option: str, value: float) -> str:
    """Return the name of a row of a sweep."""
    return f"{PROBED}: {option} {value:g}"


def measured(
    runs: Mapping[str, tuple[Sequence[str], TrainConfig]], work: Callable[..., dict] | None = None
) -> dict[str, list[dict]]:
    """Train and measure runs with every seed, on all cores.

    Args:
        runs: row -> categories and options of an expert.
        work: function with the signature of `trial`; None for `trial` itself.

    Returns:
        Row -> the figures that `trial` returns, in the order of the seeds.
    """
    MiniLab().embeds  # noqa: B018  # made once, before several processes need it
    calls = [(name, *run, seed) for name, run in runs.items() for seed in SEEDS]
    results: dict[str, dict[int, dict]] = {name: {} for name in runs}
    progress = tqdm(run_all(work or trial, calls), total=len(calls), desc="experts", file=sys.stdout)
    for (name, *_, seed), figures in progress:
        results[name][seed] = figures
        tqdm.write(f"{name}, seed {seed}: {figures}")
    return {name: [by_seed[seed] for seed in SEEDS] for name, by_seed in results.items()}


def draw_sweep(option: str, rows: Mapping[float, Sequence[Mapping[str, float]]]) -> None:
    """Plot the effect of an option: one line per column, the mean over the seeds."""
    counts = list(rows) if max(rows) > 1 else None
    picture = plot.Plot(
        f"What {option} does to one expert (mini model, {PROBED})",
        option,
        "IP: lower is better; safe counterparts and neutral prompts drawn right: higher is better",
        counts=counts,
    )
    lines = {
        name: [(value, statistics.mean(row[column] for row in figures)) for value, figures in rows.items()]
        for column, name in SHOWN.items()
    }
    picture.lines(lines)
    path = plot.FOLDER / f"efficacy_{option}.png"
    picture.save(path, f"mean of {len(SEEDS)} seeds; python dev.py bench efficacy")


def trial(name: str, categories: Sequence[str], config: TrainConfig, seed: int) -> dict[str, float]:
    """Train one expert and measure it on its categories, with pictures from seeds of its own."""
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
    """Return each figure as mean and standard deviation over the seeds, or alone if there is one seed."""
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
