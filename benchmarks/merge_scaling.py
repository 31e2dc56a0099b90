"""How much merges keep as the number of experts grows from 2 to 28, on the mini model outside the server.

Up to seven experts, there is one per category. Beyond that, the pairs of a category are split by the look of
their scenes, and each part trains its own expert: by ground for 14 experts, by ground and colour for 28. The
figures show that the parts work together; they say nothing about Stable Diffusion.
"""

import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import chain, product
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from tqdm import tqdm

import merge_quality
import mini_lab
import plot
from kept_trials import run_kept
from measurement import Group
from merge_quality import Calibration
from mini_lab import FOLDER, RECIPE, MiniLab, code_hash, groups_of
from training.config import MergeConfig
from training.experts.expert import SafetyExpert
from training.merging import merge_experts
from training.mini.build import version
from training.mini.pairs import trained_scenes
from training.mini.scenes import COLOURS, UNSAFE_ICONS, Scene
from training.rules.categories import CATEGORIES
from workers import run_all

SEED = 0
BASE, ALONE = "base", "each alone"
METHODS = (MergeConfig.method, "co_merge", "concat")
GROUNDS = ("brown", "purple")  # the grounds that pairs use
WARM = ("red", "yellow")
PARTS = {14: [(ground, tuple(COLOURS)) for ground in GROUNDS]}  # number of experts -> ground, colours
PARTS[28] = list(product(GROUNDS, (WARM, tuple(name for name in COLOURS if name not in WARM))))
# Number of experts -> pictures per expert for the words of the pairs, and as many for unseen words
COUNTS = {2: 4, 4: 4, 7: 4, 14: 3, 28: 2}
PART_STEPS = 60  # training steps of an expert that has a part of the pairs
KEPT_SCENES = 2
FILES = tuple(map(Path, (__file__, mini_lab.__file__, merge_quality.__file__)))


class Concept(NamedTuple):
    """What one expert should suppress: scenes with the stand-in of a category."""

    category: str
    scenes: tuple[Scene, ...]
    steps: int

    @property
    def prompts(self) -> list[str]:
        """Unsafe prompts of its pairs."""
        return [scene.prompt() for scene in self.scenes]


def measure() -> dict:
    """Measure merges of a growing number of experts by the default method, `co_merge` and `concat`; one seed.

    Returns:
        Number of experts and method -> `kept`: the reduction of the IP as a share of the reduction that the
        single experts reach on their concepts, for the words of the pairs; `kept_unseen`: the same for other
        words; the IP of both; `retention`: prompts to be kept that are drawn right, relative to the base; the
        processor seconds of calibration and merge.
    """
    lab = MiniLab()
    lab.embeds  # noqa: B018  # made once, before several processes need it
    needed = [(count, number) for count in COUNTS for number in range(count)]
    for _ in tqdm(run_all(train_one, needed), total=len(needed), desc="experts", file=sys.stdout):
        pass
    calls = [(count, row) for count in COUNTS for row in (BASE, ALONE, *METHODS)]
    file = FOLDER / f"mini-{version()}" / "trials" / f"merge_scaling-{code_hash(*FILES)[:16]}.jsonl"
    results: dict[tuple, dict] = {}
    for call, result in tqdm(run_kept(trial, calls, file), total=len(calls), desc="merges", file=sys.stdout):
        results[call] = result
        tqdm.write(f"{call}: {result}")
    figures = {
        (count, row): _figures(results[count, row], results[count, ALONE], results[count, BASE])
        for count, row in calls
    }
    draw(figures, plot.FOLDER / "merge_scaling.png")
    return {f"{count} experts, {row}": row_figures for (count, row), row_figures in figures.items()}


def draw(figures: Mapping[tuple[int, str], Mapping[str, float]], path: Path) -> None:
    """Plot `kept` and `retention` over the number of experts, a line per method."""
    picture = plot.Plot(
        "Merges of a growing number of experts (mini model)",
        "number of experts",
        "kept: share of what single experts suppress. retention: prompts to be kept that are drawn right",
        counts=list(COUNTS),
    )
    picture.lines(
        {
            f"{method}, {column}": [(count, figures[count, method][column]) for count in COUNTS]
            for method, column in product(METHODS, ("kept", "retention"))
        }
    )
    picture.save(path, f"seed {SEED}; python dev.py bench merge_scaling")


def _figures(merged: dict, alone: dict, base: dict) -> dict[str, float]:
    return {
        "kept": (base["ip"] - merged["ip"]) / (base["ip"] - alone["ip"]),
        "kept_unseen": (base["ip_unseen"] - merged["ip_unseen"]) / (base["ip_unseen"] - alone["ip_unseen"]),
        "ip": merged["ip"],
        "ip_unseen": merged["ip_unseen"],
        **({"retention": merged["right"] / base["right"]} if "right" in merged else {}),
        **{name: merged[name] for name in ("calibration_s", "merge_s") if name in merged},
    }


def concepts(count: int) -> list[Concept]:
    """Return the concepts that this number of experts should suppress."""
    if count not in PARTS:
        whole = ((name, trained_scenes(UNSAFE_ICONS[name])) for name in CATEGORIES[:count])
        return [Concept(name, tuple(scenes), RECIPE.steps) for name, scenes in whole]
    return [
        Concept(
            name,
            tuple(s for s in trained_scenes(icon) if s.ground == ground and s.colour in colours),
            PART_STEPS,
        )
        for name, icon in UNSAFE_ICONS.items()
        for ground, colours in PARTS[count]
    ]


def train_one(count: int, number: int) -> None:
    """Train an expert and store it for the trials."""
    expert_of(_lab(), concepts(count)[number])


def expert_of(lab: MiniLab, concept: Concept) -> SafetyExpert:
    """Return the expert of a concept."""
    is_whole = len(concept.scenes) == len(trained_scenes(UNSAFE_ICONS[concept.category]))
    config = replace(RECIPE, steps=concept.steps, seed=SEED)
    return lab.expert((concept.category,), config, None if is_whole else concept.prompts)


def trial(count: int, row: str) -> dict[str, float]:
    """Measure the base, every expert on its own concept, or a merge of the experts on all concepts."""
    lab, trained = _lab(), concepts(count)
    groups = [_groups(concept, COUNTS[count]) for concept in trained]
    if row == ALONE:
        pairs = zip(trained, groups, strict=True)
        measured = [lab.rates(expert_of(lab, concept).layers, group, 1) for concept, group in pairs]
        return _means({name: rate for rates in measured for name, rate in rates.items()})
    layers, seconds = {}, {}
    if row != BASE:
        experts = [expert_of(lab, concept) for concept in trained]
        config = MergeConfig(method=row, prompts_per_category=lab.prompts_per_category, seed=SEED)
        calibration, start = Calibration(lab, config, experts), time.process_time()
        layers = merge_experts(
            experts, config, calibrate=calibration.statistics, distilled=calibration.distilled
        ).layers
        seconds = {
            "calibration_s": calibration.seconds,
            "merge_s": time.process_time() - start - calibration.seconds,
        }
    kept = groups_of((), kept_scenes=KEPT_SCENES)
    rates = lab.rates(layers, [*chain.from_iterable(groups), *kept], 1)
    right = sum(rates.pop(group.name) * len(group.prompts) for group in kept)
    return _means(rates) | {"right": right / sum(len(group.prompts) for group in kept)} | seconds


def _groups(concept: Concept, num_pictures: int) -> tuple[Group, Group]:
    """Return the prompts of a concept in the words of its pairs and in unseen words."""
    icon, repeats = UNSAFE_ICONS[concept.category], -(-num_pictures // len(concept.scenes))
    scenes = (concept.scenes * repeats)[:num_pictures]
    name = f"{concept.category}, {scenes[0].colour} on {scenes[0].ground}"
    prompts = tuple(scene.prompt(template=number % 2) for number, scene in enumerate(scenes))
    unseen = tuple(scene.prompt(synonym=True) for scene in scenes)
    return Group(name, scenes, prompts, icon), Group(f"{name}, unseen word", scenes, unseen, icon)


def _means(rates: dict[str, float]) -> dict[str, float]:
    unseen = {name for name in rates if name.endswith("unseen word")}
    return {
        "ip": mean(rate for name, rate in rates.items() if name not in unseen),
        "ip_unseen": mean(rates[name] for name in unseen),
    }


@cache
def _lab() -> MiniLab:
    return MiniLab()
