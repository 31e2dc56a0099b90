"""The table that decides: every method on the large world, three seeds, trained from pairs alone.

It says what a method suppresses beyond what it was shown, and what it keeps of what it never saw. The narrow
UNet draws; `own_table.py` shows on the small world that the server draws the same. The figures compare
methods; they say nothing about Stable Diffusion.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import mean

from tqdm import tqdm

import candidates
import columns
import large_groups
import large_lab
import merge_quality
import mini_lab
import objectives
import plot
import recorded
from candidates import Candidate
from efficacy import SEEDS, spread
from kept_trials import all_kept
from large_groups import IP, KEPT_COLUMNS, NEVER, UNSEEN_CONCEPTS, groups_of
from large_lab import SEEDS_APART, LargeLab, counts_of, shares
from merge_quality import trained
from mini_lab import code_hash
from training.mini.recipe.experts import CONFIG
from training.rules.categories import CATEGORIES
from workers import run_all

BASE, TIME = "base", "CPU s to make"
ALL_IN_ONE = "all-in-one"
OURS = ("single experts", ALL_IN_ONE, "regmean", "distill", "co_merge", "ties", "concat")
OTHERS = (*candidates.ESD, "UCE", *(f"SLD {name}" for name in candidates.PUBLISHED))
DUAL_LATENTS = {  # safe context -> what makes the candidate
    "dual latent, words replaced": candidates.dual_latent_by_table,
    "dual latent, concept vectors": candidates.dual_latent_by_concept,
}
REACHING = {"single experts, reach 0.25": replace(CONFIG, reach=0.25)}  # beyond the words of the pairs
MERGED_AS_PUBLISHED = "alignguard, merged by co_merge"  # the paper's whole method
REACHING_MERGED = {row.replace("single experts", "regmean"): row for row in REACHING}  # -> whose experts
MERGES_OF = {"alignguard": (MERGED_AS_PUBLISHED,)}  # published objective -> rows that merge its experts
MODULES = (candidates, columns, large_groups, large_lab, merge_quality, mini_lab, objectives)
FILES = tuple(Path(module.__file__) for module in MODULES)
RECORD = recorded.FOLDER / "large_world.csv"
PLOT = "large_world.png"


def measure(rows: Sequence[str] = (), seeds: Sequence[int] = SEEDS) -> dict:
    """Make and measure rows with every seed on all cores, and record them in `docs/figures/`.

    A killed run continues where it stopped. What other runs recorded stays, so the table can be measured in
    parts. Plots what each row suppresses against what it keeps of neutral concepts that training never keeps.

    Args:
        rows: names of rows; none: all.
        seeds: of trainings and pictures.

    Returns:
        Row -> the figures of `figures_of`, as mean and standard deviation over the seeds recorded so far.

    Raises:
        SystemExit: if there is no such row.
    """
    lab = LargeLab()
    every = [*makers(lab, SEEDS[0])]
    chosen = [BASE, *(row for row in rows or every if row != BASE)]  # what is kept is relative to the base
    if unknown := [row for row in chosen if row not in every]:
        raise SystemExit(f"large_world: unknown row {unknown[0]!r}; choose from {', '.join(every)}.")
    prepare(lab)
    needed = [call for seed in seeds for call in trainings(seed, chosen)]
    for _ in tqdm(run_all(train_one, needed), total=len(needed), desc="experts", file=sys.stdout):
        pass
    calls = [(row, seed) for seed in seeds for row in chosen]
    file = lab.folder / "trials" / f"large_world-{code_hash(Path(__file__), *FILES)[:16]}.jsonl"
    results = all_kept(trial, calls, file, lambda result: shares(result["counts"]))
    recorded.write(RECORD, {call: figures_of(*call, results) for call in calls}, every)
    figures = recorded.by_row(recorded.read(RECORD), every)
    draw_trade_off(figures, plot.FOLDER / PLOT)
    return {row: spread(by_seed) for row, by_seed in figures.items()}


def prepare(lab: LargeLab) -> None:
    """Make the embeddings and pairs that several processes will need."""
    lab.embeds  # noqa: B018
    for category in tqdm(CATEGORIES, desc="pairs", file=sys.stdout):
        lab.pairs(category)


def trainings(seed: int, rows: Collection[str]) -> list[tuple]:
    """Return the arguments of `train_one` for every LoRA that rows need with a seed, longest first."""
    recipes = [name for name in objectives.PUBLISHED if {single(name), *MERGES_OF.get(name, ())} & {*rows}]
    recipes += [row for row in REACHING if row in rows]
    recipes += [row for merge, row in REACHING_MERGED.items() if merge in rows and row not in rows]
    recipes += [""] if ({*OURS} - {ALL_IN_ONE}) & {*rows} else []
    together = [("", CATEGORIES, seed)] if ALL_IN_ONE in rows else []
    return [*together, *((recipe, (name,), seed) for recipe in recipes for name in CATEGORIES)]


def single(objective: str) -> str:
    """Return the name of the row of a published objective's single experts."""
    return f"{objective}, single experts"


def train_one(recipe: str, categories: Sequence[str], seed: int) -> None:
    """Train a LoRA and store it for the trials.

    Args:
        recipe: a published objective, a row of `REACHING`, or empty for the lab's recipe.
        categories: categories whose pairs are used.
        seed: of the training.
    """
    chosen = REACHING.get(recipe) or (objectives.recipe_of(recipe) if recipe else None)
    trained(_lab(), categories, seed, chosen)


def makers(lab: LargeLab, seed: int) -> dict[str, Callable[[], Candidate]]:
    """Return a function that makes each row, by name and in the order of the table."""
    every = candidates.candidates(lab, seed)
    recipes = {name: objectives.recipe_of(name) for name in objectives.PUBLISHED}
    singles = REACHING | {single(name): recipe for name, recipe in recipes.items()}
    return {
        **{row: every[row] for row in (BASE, *OURS, *OTHERS)},
        **{row: lambda make=make: make(lab) for row, make in DUAL_LATENTS.items()},
        **{
            row: lambda recipe=recipe: candidates.single_experts(lab, seed, recipe)
            for row, recipe in singles.items()
        },
        **{
            row: lambda recipe=REACHING[of]: candidates.merge(lab, "regmean", seed, recipe)
            for row, of in REACHING_MERGED.items()
        },
        MERGED_AS_PUBLISHED: lambda: candidates.merge(lab, "co_merge", seed, recipes["alignguard"]),
    }


def trial(row: str, seed: int) -> dict:
    """Make a row and draw all groups with it, with pictures from seeds of its own.

    Returns:
        `train_s`, and `counts`: column -> category -> [pictures that count, all pictures].
    """
    lab = _lab()
    lab.seed_offset = SEEDS_APART * seed
    candidate = makers(lab, seed)[row]()
    return {"train_s": candidate.train_s, "counts": counts_of(lab, candidate, groups_of(CATEGORIES))}


def figures_of(row: str, seed: int, results: Mapping[tuple, Mapping]) -> dict[str, float]:
    """Return the figures of a row for one seed.

    Returns:
        The IP on concepts in pairs by words in pairs, by their unseen words, and on concepts of the category
        that no pair shows; the share of safe counterparts and of neutral concepts drawn as asked, relative to
        the base model's, and of the base model itself as it is; and the processor seconds to make the row.
    """
    result = results[row, seed]
    base = None if row == BASE else results[BASE, seed]["counts"]
    return shares(result["counts"], base) | {TIME: result["train_s"]}


def draw_trade_off(figures: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Plot the IP of each row against what it keeps; a ring is the IP on concepts that no pair shows."""
    picture = plot.Plot(
        "What each method suppresses and keeps (large world)",
        f"{NEVER}: drawn right, relative to the base; higher is better",
        "IP, dot: concepts in pairs, ring: concepts of the category never in pairs; lower is better",
    )
    points = {
        row: {column: mean(of_seed[column] for of_seed in by_seed) for column in by_seed[0]}
        for row, by_seed in figures.items()
    }
    points[BASE] |= dict.fromkeys(KEPT_COLUMNS, 1.0)
    for number, at in enumerate(points.values()):
        picture.point((at[NEVER], at[UNSEEN_CONCEPTS]), number, hollow=True)
        picture.point((at[NEVER], at[IP]), number)
    for number, (row, at) in enumerate(points.items()):
        picture.name(row, (at[NEVER], at[IP]), number)
    most = max(map(len, figures.values()))
    picture.save(path, f"mean of 1 to {most} seeds; python dev.py bench large_world")


@cache
def _lab() -> LargeLab:
    return LargeLab()
