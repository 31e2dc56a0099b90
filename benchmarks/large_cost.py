"""Quality against steps and against operations on the large world, for one expert.

Noise is drawn anew at each step or taken from a bank of a few draws, and a pair is seen under its unsafe
prompt alone or under both of its prompts. Operations are counted while the expert trains, what it draws to
keep included. The figures compare options; they say nothing about Stable Diffusion.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import NamedTuple

import large_world
import plot
from candidates import Candidate, as_change
from efficacy import spread
from kept_trials import all_kept
from large_groups import KEPT_COLUMNS, SAFETY, groups_of
from large_lab import SEEDS_APART, LargeLab, counts_of, shares
from mini_lab import code_hash
from training.config import TrainConfig
from training.trainer.loop import train
from training.trainer.needs import CountedOperations

RUNS = (("violence", 0), ("sexual", 1), ("shocking", 2))  # category and seed
STEPS = (75, 150, 300, 600)
BANKS = (0, 4, 8, 16)  # draws; 0: noise is drawn anew
FIXED = {"lr_schedule": "cosine", "validation": 0.0}  # a number of steps that nothing measured chooses
FILES = (Path(__file__), Path(large_world.__file__), *large_world.FILES)
TICKS = (1, 2, 5, 10, 20)  # TFLOP


class Choice(NamedTuple):
    """How an expert is trained.

    Attributes:
        steps: number of steps; 0: chosen by held-out pairs, as by default.
        bank: draws of the bank, 0: none.
        both: whether a pair is seen under both of its prompts.
    """

    steps: int
    bank: int
    both: bool

    @property
    def line(self) -> str:
        """Its line in a plot: what is compared at each number of steps."""
        noise = f"bank {self.bank}" if self.bank else "fresh noise"
        return f"{noise}, {'both prompts' if self.both else 'unsafe prompt'}"

    @property
    def row(self) -> str:
        """Its row in the table."""
        return f"{self.line}, {self.steps or 'chosen'} steps"

    def config(self, recipe: TrainConfig) -> TrainConfig:
        """Return the options of its training."""
        length = {"steps": self.steps} | FIXED if self.steps else {}
        return replace(recipe, bank=self.bank, safe_prompt_weight=float(self.both), **length)


CHOICES = [Choice(*values) for values in product((*STEPS, 0), BANKS, (True, False))]


def measure() -> dict:
    """Train and measure every choice on three categories, each with a seed of its own.

    Plots quality against steps and against operations. A killed run continues where it stopped.

    Returns:
        Choice -> the figures of `figures_of`, as mean and standard deviation over the categories.
    """
    lab = LargeLab()
    lab.embeds  # noqa: B018  # made once, before several processes need it
    for category, _ in RUNS:
        lab.pairs(category)
    calls = [(*run, *choice) for run in RUNS for choice in ((), *CHOICES)]
    file = lab.folder / "trials" / f"large_cost-{code_hash(*FILES)[:16]}.jsonl"
    results = all_kept(trial, calls, file, lambda result: shares(result["counts"]))
    figures = {
        choice: [figures_of(results[(*run, *choice)], results[run]) for run in RUNS] for choice in CHOICES
    }
    draw(figures, plot.FOLDER)
    return {choice.row: spread(of_runs) for choice, of_runs in figures.items()}


def trial(category: str, seed: int, *choice: float) -> dict:
    """Measure the base model, or train an expert and measure it.

    Args:
        category: category of the pairs and the unsafe prompts.
        seed: of the training and of the pictures.
        choice: fields of a `Choice`; none for the base model.

    Returns:
        `counts`, see `large_lab.Counts`; of an expert also `operations`, `steps` behind it and steps `taken`.
    """
    lab, cost = _lab(), {}
    lab.seed_offset = SEEDS_APART * seed
    candidate = Candidate({})
    if choice:
        config = replace(Choice(*choice).config(lab.recipe), seed=seed)
        data = lab.encode(lab.pairs(category), config)
        with CountedOperations() as counted:
            result = train(lab.unet, data, lab.schedule, config)
        candidate = Candidate({"": as_change(result.layers, lab.unet)})
        cost = {"operations": counted.total, "steps": result.steps_done, "taken": len(result.losses)}
    return {"counts": counts_of(lab, candidate, groups_of((category,)))} | cost


def figures_of(result: Mapping, base: Mapping) -> dict[str, float]:
    """Return the figures of one expert.

    Returns:
        `quality`: the mean of what is suppressed, 1 - IP, and of what is kept, relative to the base, over the
        columns; then the columns, the steps behind the expert and those taken, and the operations in TFLOP.
    """
    own = shares(result["counts"], base["counts"])
    suppressed = [1 - own[column] for column in SAFETY]
    kept = [own[column] for column in KEPT_COLUMNS]
    return {
        "quality": (statistics.mean(suppressed) + statistics.mean(kept)) / 2,
        **own,
        "steps": float(result["steps"]),
        "steps taken": float(result["taken"]),
        "TFLOP": result["operations"] / 1e12,
    }


def draw(figures: Mapping[Choice, Sequence[Mapping[str, float]]], folder: Path) -> None:
    """Plot the mean quality over the steps, and over the operations; a line per kind of noise and prompts."""
    for column, ticks in (("steps taken", STEPS), ("TFLOP", TICKS)):
        picture = plot.Plot(
            f"Quality of an expert against {column} (large world)",
            column,
            "mean of what is suppressed and what is kept; higher is better",
            counts=ticks,
        )
        lines: dict[str, list[plot.Point]] = {}
        for choice, of_runs in figures.items():
            place = tuple(statistics.mean(row[name] for row in of_runs) for name in (column, "quality"))
            if choice.steps:
                lines.setdefault(choice.line, []).append(place)
            else:  # the ring of a line: steps chosen by held-out pairs
                number = list(dict.fromkeys(one.line for one in figures)).index(choice.line)
                picture.point(place, number, hollow=True)
        picture.lines(lines)
        name = column.split()[0].lower()
        footer = f"rings: steps chosen by held-out pairs; {len(RUNS)} experts"
        picture.save(folder / f"large_cost_{name}.png", f"{footer}; python dev.py bench large_cost")


@cache
def _lab() -> LargeLab:
    return LargeLab()
