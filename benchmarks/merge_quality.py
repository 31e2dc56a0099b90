"""How much each merge method keeps of seven experts, on the mini model outside the server.

The figures show that the parts work together; they say nothing about Stable Diffusion.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from statistics import mean
from unittest import mock

from torch import Tensor
from tqdm import tqdm

import measurement
import mini_lab
import plot
from efficacy import SEEDS, spread
from kept_trials import run_kept
from measurement import Group, unseen_words_group
from mini_lab import FOLDER, RECIPE, Lab, MiniLab, code_hash, groups_of
from training.config import MergeConfig, TrainConfig
from training.experts.expert import SafetyExpert
from training.experts.low_rank import LowRank
from training.merging import (
    MERGE_METHODS,
    BaseNetwork,
    CalibrationInputs,
    Distilled,
    Members,
    Statistics,
    calibration_prompts,
    collect_statistics,
    distill,
    merge_experts,
)
from training.mini.build import version
from training.pairs.pair import joined
from training.rules.categories import CATEGORIES
from workers import run_all

BASE, ALL_IN_ONE = "base", "one LoRA trained on all"
AT_RANK = f" at rank {RECIPE.rank}"
# Prompts per cell of the table; each is drawn once per seed.
NUM_UNSAFE, NUM_UNSEEN, KEPT_SCENES = 8, 8, 5
FILES = (Path(__file__), Path(mini_lab.__file__), Path(measurement.__file__))


def measure() -> dict:
    """Measure the base, each expert, one LoRA trained on all categories, and every merge; three seeds.

    Every method merges the seven experts, at the rank it chooses and at the rank of one expert. All rows draw
    the same prompts from the same seeds. A killed run continues where it stopped.

    Returns:
        Row -> the figures of `figures_of`, as mean and standard deviation over the seeds.
    """
    lab = MiniLab()
    lab.embeds  # noqa: B018  # made once, before several processes need it
    needed = [(names, seed) for seed in SEEDS for names in [*((name,) for name in CATEGORIES), CATEGORIES]]
    for _ in tqdm(run_all(train_one, needed), total=len(needed), desc="experts", file=sys.stdout):
        pass
    calls = [(row, seed) for seed in SEEDS for row in rows()]
    file = FOLDER / f"mini-{version()}" / "trials" / f"merge_quality-{code_hash(*FILES)[:16]}.jsonl"
    results: dict[tuple, dict] = {}
    for call, result in tqdm(run_kept(trial, calls, file), total=len(calls), desc="merges", file=sys.stdout):
        results[call] = result
        tqdm.write(f"{call}: {result}")
    figures = {row: [figures_of(row, seed, results) for seed in SEEDS] for row in rows()}
    draw_trade_off(figures, plot.FOLDER / "merge_quality.png")
    return {row: spread(by_seed) for row, by_seed in figures.items()}


def draw_trade_off(figures: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Plot what each row suppresses against what it keeps, with the single experts as one point."""
    grouped = {row: by_seed for row, by_seed in figures.items() if row not in map(alone, CATEGORIES)}
    grouped["each alone"] = [by_seed for name in CATEGORIES for by_seed in figures[alone(name)]]
    points = {
        row: (_mean_of(by_seed, "retention"), _mean_of(by_seed, "ip_mean"))
        for row, by_seed in grouped.items()
    }
    numbers: dict[str, int] = {}
    for row in points:
        numbers.setdefault(row.removesuffix(AT_RANK), len(numbers))
    picture = plot.Plot(
        "Seven experts merged: IP against retention (mini model)",
        "prompts to be kept that are drawn right, relative to the base; higher is better",
        "IP of unsafe prompts; lower is better",
    )
    for row, at in points.items():
        picture.point(at, numbers[row.removesuffix(AT_RANK)], hollow=row.endswith(AT_RANK))
    for method, number in numbers.items():
        picture.name(method, points.get(method) or points[method + AT_RANK], number)
    seeds = f"mean of {len(figures[BASE])} seeds"
    picture.save(path, f"rings: at rank {RECIPE.rank}; {seeds}; python dev.py bench merge_quality")


def _mean_of(rows_of_seeds: Sequence[Mapping[str, float]], column: str) -> float:
    return mean(row[column] for row in rows_of_seeds)


def rows() -> list[str]:
    """Return the names of all rows; `svd` occurs once, because its default rank is that of one expert."""
    merges = [method + size for method in MERGE_METHODS for size in ("", AT_RANK) if method + size != "svd"]
    return [BASE, *map(alone, CATEGORIES), ALL_IN_ONE, *merges]


def alone(category: str) -> str:
    """Return the row name of a single expert."""
    return f"{category} alone"


def figures_of(row: str, seed: int, results: Mapping[tuple, Mapping]) -> dict[str, float]:
    """Return the figures of a row for one seed.

    Returns:
        `ip_mean` and `ip_worst`: over the categories that the row should suppress. `ip_unseen`: the mean for
        words that no pair uses. `kept`: the reduction of the IP as a share of the reduction that the single
        experts reach, over all categories; `kept_unseen` is the same for unseen words. `retention`: prompts
        to be kept that are drawn right, relative to the base; `neutral` and `counterparts` are its parts.
        `distance`: mean absolute difference in [0, 1] of those pictures to the base's at the same seed.
        `norm` and `rank` of the update. IP and `kept` of each category.
    """
    result, rates, base = results[row, seed], results[row, seed]["rates"], results[BASE, seed]["rates"]
    names = [name for name in CATEGORIES if name in rates]
    words = [unseen_words_group(name, NUM_UNSEEN).name for name in names]
    single = dict(pair for name in CATEGORIES for pair in results[alone(name), seed]["rates"].items())
    lowered = {group: base[group] - rates[group] for group in (*names, *words)}
    reachable = {group: base[group] - single[group] for group in lowered}
    return {
        "ip_mean": mean(rates[name] for name in names),
        "ip_worst": max(rates[name] for name in names),
        "ip_unseen": mean(rates[word] for word in words),
        "kept": sum(lowered[name] for name in names) / sum(reachable[name] for name in names),
        "kept_unseen": sum(lowered[word] for word in words) / sum(reachable[word] for word in words),
        "retention": _kept_right(rates) / _kept_right(base),
        "neutral": rates["neutral"] / base["neutral"],
        "counterparts": rates["safe counterparts"] / base["safe counterparts"],
        "distance": result["distance"],
        "norm": result["norm"],
        "rank": float(result["rank"]),
        **{f"ip {name}": rates[name] for name in names},
        **{f"kept {name}": lowered[name] / reachable[name] for name in names},
    }


def _kept_right(rates: Mapping[str, float]) -> float:
    """Return the share of prompts to be kept that are drawn right."""
    sizes = {group.name: len(group.prompts) for group in groups_of((), kept_scenes=KEPT_SCENES)}
    return sum(rates[name] * size for name, size in sizes.items()) / sum(sizes.values())


def train_one(categories: Sequence[str], seed: int) -> None:
    """Train a LoRA and store it for the trials."""
    trained(_lab(), categories, seed)


def trained(
    lab: Lab, categories: Sequence[str], seed: int, recipe: TrainConfig | None = None
) -> SafetyExpert:
    """Return a LoRA trained on categories, with as many steps as their single experts have together.

    Args:
        lab: of the world.
        categories: categories whose pairs are used.
        seed: of the training.
        recipe: of a single expert; None: the lab's.
    """
    recipe = recipe or lab.recipe
    return lab.expert(categories, replace(recipe, steps=recipe.steps * len(categories), seed=seed))


def trial(row: str, seed: int) -> dict:
    """Measure a row on pictures of one seed: the rate of each group, and the distance, norm and rank."""
    lab = _lab()
    lab.seed_offset = 10_000 * seed
    layers = layers_of(lab, row, seed)
    groups = groups_of_row(row)
    pictures = lab.pictures(layers, groups, per_prompt=1)
    before = _base_pictures(seed)
    kept = [group.name for group in groups_of((), kept_scenes=KEPT_SCENES)]
    distances = [(pictures[name] - before[name]).abs().mean((1, 2, 3)) / 2 for name in kept]  # (pictures,)
    return {
        "rates": lab.judged(pictures, groups, per_prompt=1),
        "distance": sum(float(part.sum()) for part in distances) / sum(map(len, distances)),
        "norm": sum(layer.norm() ** 2 for layer in layers.values()) ** 0.5,
        "rank": max((layer.rank for layer in layers.values()), default=0),
    }


def groups_of_row(row: str) -> list[Group]:
    """Return the groups that a row draws: a single expert draws its category and the prompts to be kept."""
    categories = [name for name in CATEGORIES if row == alone(name)] or CATEGORIES
    unseen = [unseen_words_group(name, NUM_UNSEEN) for name in categories]
    return [*groups_of(categories, num_prompts=NUM_UNSAFE, kept_scenes=KEPT_SCENES), *unseen]


def layers_of(lab: MiniLab, row: str, seed: int) -> Mapping[str, LowRank]:
    """Return the update of a row: none, one expert, the LoRA trained on all, or a merge."""
    singles = {alone(name): (name,) for name in CATEGORIES}
    if row == BASE:
        return {}
    if row in singles or row == ALL_IN_ONE:
        return trained(lab, singles.get(row, CATEGORIES), seed).layers
    method = row.removesuffix(AT_RANK)
    experts = [trained(lab, (name,), seed) for name in CATEGORIES]
    return merged(lab, experts, method, RECIPE.rank if method != row else 0, seed).layers


def merged(
    lab: Lab, experts: Sequence[SafetyExpert], method: str, output_rank: int, seed: int
) -> SafetyExpert:
    """Merge experts into one LoRA, with calibration if the method needs it."""
    config = MergeConfig(
        method=method, output_rank=output_rank, prompts_per_category=lab.prompts_per_category, seed=seed
    )
    calibration = Calibration(lab, config, experts)
    return merge_experts(experts, config, calibrate=calibration.statistics, distilled=calibration.distilled)


class Calibration:
    """The calibration of a merge on the pairs of its experts' categories, if the method asks for it.

    `seconds` is the processor time that it took.
    """

    def __init__(self, lab: Lab, config: MergeConfig, experts: Sequence[SafetyExpert]) -> None:
        self._lab, self._config, self._experts = lab, config, experts
        self._base = BaseNetwork(lab.unet, lab.schedule)
        self.seconds = 0.0

    def statistics(self, members: Members) -> Statistics:
        """Run the base model on the calibration prompts."""
        start = time.process_time()
        inputs = self._inputs
        statistics = collect_statistics(self._base, inputs, members, self._config, batch_size=16)
        self.seconds = time.process_time() - start
        return statistics

    def distilled(self, members: Members, layers: Mapping[str, LowRank]) -> Distilled:
        """Train a merge on what its experts predict."""
        return distill(self._base, self._inputs, members, layers, self._config)

    @cached_property
    def _inputs(self) -> CalibrationInputs:
        return calibration_inputs(self._lab, self._config, self._experts)


def calibration_inputs(lab: Lab, config: MergeConfig, experts: Sequence[SafetyExpert]) -> CalibrationInputs:
    """Return the calibration inputs of a merge."""
    categories = dict.fromkeys(name for expert in experts for name in expert.categories)
    pairs = joined([lab.pairs(category) for category in categories])
    neutral = [(image.prompt, image.image) for image in pairs.neutral]
    with mock.patch.object(sys.modules[calibration_prompts.__module__], "everyday", lab.everyday):
        sample = calibration_prompts(pairs.pairs, config, neutral)
    prompts = lab.calibration(sample.prompts)
    pictures = lab.latents(sample.pictures)
    return CalibrationInputs(
        prompts,
        lab.latent_shape,
        sample.categories,
        pictures,
        neutral=sample.neutral,
    )


@cache
def _base_pictures(seed: int) -> dict[str, Tensor]:
    lab = _lab()
    lab.seed_offset = 10_000 * seed
    return lab.pictures({}, groups_of((), kept_scenes=KEPT_SCENES), per_prompt=1)


@cache
def _lab() -> MiniLab:
    return MiniLab()
