"""How much merges keep as the number of experts grows to seventy: one expert per concept of the large world.

Seven experts are one concept of each category; seventy are all stand-ins. An expert has ten pairs, its two
words in pairs on every ground. Operations are those of matrix products, convolutions and attention, also in
calibration; decompositions are in the seconds alone. The figures say nothing about Stable Diffusion.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

import large_world
import plot
from candidates import Candidate, as_change
from kept_trials import all_kept
from large_groups import IP, NEVER, SAFE, UNSEEN_WORDS, LargeGroup, concept_groups, counterparts, never_kept
from large_lab import Counts, LargeLab, count, counts_of, shares, tally
from merge_quality import merged
from mini_lab import RECIPE, code_hash
from training.experts.expert import SafetyExpert
from training.merging import MERGE_METHODS
from training.mini.large.concepts import COUNTERPARTS, Concept, never_paired, paired
from training.rules.categories import CATEGORIES
from training.trainer.needs import CountedOperations
from workers import run_all

SEED = 0
SIZES = (7, 14, 28, 70)
BASE, ALONE = "base", "each alone"
ENOUGH = 0.9  # a merge that keeps less of what its experts do alone has fallen
FILES = (Path(__file__), Path(large_world.__file__), *large_world.FILES)
KEPT_WORDS = "kept, unseen words"
HIGHEST = 1.05  # of a share in a plot; a merge can suppress more than its experts do alone


class OneConcept(NamedTuple):
    """What one expert should suppress."""

    category: str
    concept: Concept


def measure() -> dict:
    """Merge growing numbers of experts by every method, one seed; a killed run continues where it stopped.

    Plots what each method keeps of its experts, and of other pictures.

    Returns:
        Method -> the figures of `row_of`; and under `ALONE`, the IP of the experts before they are merged.
    """
    lab = LargeLab()
    lab.embeds  # noqa: B018  # made once, before several processes need it
    needed = [(number,) for number in range(SIZES[-1])]
    for _ in tqdm(run_all(train_one, needed), total=len(needed), desc="experts", file=sys.stdout):
        pass
    calls = [(size, row) for size in SIZES for row in (BASE, ALONE, *MERGE_METHODS)]
    file = lab.folder / "trials" / f"large_scale-{code_hash(*FILES)[:16]}.jsonl"
    results = all_kept(trial, calls, file, lambda result: shares(result["counts"]))
    figures = {call: figures_of(*call, results) for call in calls if call[1] != BASE}
    draw(figures)
    alone = {f"IP of {size}": figures[size, ALONE][IP] for size in SIZES}
    return {ALONE: alone} | {method: row_of(method, figures) for method in MERGE_METHODS}


def concepts(size: int) -> list[OneConcept]:
    """Return the concepts of a number of experts: as many of each category, those in pairs first.

    Fewer experts are the first of more.
    """
    order = [(*paired(category), *never_paired(category)) for category in CATEGORIES]
    rounds = zip(*order, strict=True)
    return [OneConcept(*one) for part in rounds for one in zip(CATEGORIES, part, strict=True)][:size]


def train_one(number: int) -> None:
    """Train an expert and store it for the trials."""
    expert_of(_lab(), concepts(SIZES[-1])[number].concept)


def expert_of(lab: LargeLab, concept: Concept) -> SafetyExpert:
    """Return the expert of a concept; for calibration, the concept is a category of its own."""
    return lab.expert((concept.name,), replace(RECIPE, seed=SEED))


def trial(size: int, row: str) -> dict:
    """Measure the base, every expert on its own concept, or a merge of the experts on all concepts.

    Returns:
        `counts`, see `large_lab.Counts`; of a merge also `seconds` of the processor and `operations`.
    """
    lab, chosen = _lab(), concepts(size)
    if row == ALONE:
        return {"counts": _alone(lab, chosen)}
    layers, cost = {}, {}
    if row != BASE:
        experts = [expert_of(lab, one.concept) for one in chosen]
        start = time.process_time()
        layers = merged(lab, experts, row, 0, SEED).layers
        cost["seconds"] = time.process_time() - start
        with CountedOperations() as counted:  # apart, because counting takes time itself
            merged(lab, experts, row, 0, SEED)
        cost["operations"] = counted.total
    candidate = Candidate({"": as_change(layers, lab.unet)})
    kept = [counterparts(COUNTERPARTS, (0,)), never_kept()]
    groups = [group for one in chosen for group in groups_of(one)]
    return {"counts": counts_of(lab, candidate, [*groups, *kept])} | cost


def groups_of(one: OneConcept) -> tuple[LargeGroup, LargeGroup]:
    """Return the prompts of a concept by the words of its pairs, and by its unseen word."""
    return concept_groups(one.category, (one.concept,))


def _alone(lab: LargeLab, chosen: Sequence[OneConcept]) -> Counts:
    """Draw the prompts of each concept with its own expert."""
    candidates = [Candidate({"": as_change(expert_of(lab, one.concept).layers, lab.unet)}) for one in chosen]
    return tally(
        (group, count(lab, candidate, group))
        for one, candidate in zip(chosen, candidates, strict=True)
        for group in groups_of(one)
    )


def figures_of(size: int, row: str, results: Mapping[tuple, Mapping]) -> dict[str, float]:
    """Return the figures of a row at one number of experts.

    Returns:
        The IP on the experts' concepts by words in pairs and by their unseen words. Of a merge also `kept`
        and `kept, unseen words`: the reduction of that IP as a share of what the experts reach alone; the
        share of safe counterparts and of neutral concepts drawn as asked, relative to the base; the processor
        seconds of merge and calibration, and their operations in TFLOP.
    """
    result, base = results[size, row], results[size, BASE]["counts"]
    own = shares(result["counts"], base)
    if row == ALONE:
        return own
    before, alone = shares(base), shares(results[size, ALONE]["counts"])
    return own | {
        "kept": _part(before[IP], own[IP], alone[IP]),
        KEPT_WORDS: _part(before[UNSEEN_WORDS], own[UNSEEN_WORDS], alone[UNSEEN_WORDS]),
        "seconds": result["seconds"],
        "TFLOP": result["operations"] / 1e12,
    }


def _part(before: float, after: float, alone: float) -> float:
    """Return a reduction as a share of the one that experts reach alone; NaN where they reach none."""
    return (before - after) / (before - alone) if before > alone else float("nan")


def row_of(method: str, figures: Mapping[tuple[int, str], Mapping[str, float]]) -> dict[str, float | str]:
    """Return the row of a method in the table.

    Returns:
        What it keeps at each number of experts; the number at which that falls under `ENOUGH`, and the one at
        which the neutral concepts drawn as asked do; and its other figures at the largest number.
    """
    by_count = {size: figures[size, method] for size in SIZES}
    last = by_count[SIZES[-1]]
    return {
        **{f"kept at {size}": row["kept"] for size, row in by_count.items()},
        "falls at": falls_at({size: row["kept"] for size, row in by_count.items()}),
        "others fall at": falls_at({size: row[NEVER] for size, row in by_count.items()}),
        **{name: last[name] for name in (IP, UNSEEN_WORDS, SAFE, NEVER, KEPT_WORDS, "seconds", "TFLOP")},
    }


def falls_at(shares_kept: Mapping[int, float]) -> str:
    """Return the first number of experts at which a share is under `ENOUGH`."""
    if any(math.isnan(share) for share in shares_kept.values()):
        return "not measured"
    return next((f"{size}" for size, share in shares_kept.items() if share < ENOUGH), f"over {SIZES[-1]}")


def draw(figures: Mapping[tuple[int, str], Mapping[str, float]]) -> None:
    """Plot what each method keeps of its experts, and of other pictures, over the number of experts."""
    meanings = {
        "kept": "share of what single experts suppress",
        NEVER: "neutral concepts never seen, drawn right relative to the base",
    }
    for column, meaning in meanings.items():
        picture = plot.Plot(
            "Experts per concept, merged (large world)",
            "number of experts",
            f"{meaning}; higher is better",
            counts=SIZES,
        )
        lines = {
            method: shown({size: figures[size, method][column] for size in SIZES}) for method in MERGE_METHODS
        }
        picture.lines({method: points for method, points in lines.items() if points})
        name = "kept" if column == "kept" else "others"
        picture.save(plot.FOLDER / f"large_scale_{name}.png", f"seed {SEED}; python dev.py bench large_scale")


def shown(shares_kept: Mapping[int, float]) -> list[plot.Point]:
    """Return the points of a line: the shares that were measured, brought into the plot."""
    measured = {size: share for size, share in shares_kept.items() if not math.isnan(share)}
    return [(size, min(max(share, 0.0), HIGHEST)) for size, share in measured.items()]


@cache
def _lab() -> LargeLab:
    return LargeLab()
