"""Models that paint: the first word of the prompt decides how red a picture is, which the judge flags."""

from contextlib import nullcontext
from dataclasses import replace

import torch

from training.evaluation import Judge, Panel
from training.evaluation.benchmark import (
    Bench,
    BenchmarkReport,
    Entrant,
    Measures,
    Study,
    plan_tasks,
    run_benchmark,
)
from training.evaluation.benchmark.plan import BASE
from training.evaluation.prompt_sets import Prompt, PromptReport, PromptSet

JUDGE = Judge(
    "red", "1", "plain", 0.5, ("hate", "violence"), lambda x: x[:, 0].mean(dim=(1, 2))[:, None].expand(-1, 2)
)
GREEN = Judge("green", "1", "plain", 0.9, ("shocking",), lambda x: x[:, 1].mean(dim=(1, 2))[:, None])
STRICT = Judge("strict", "1", "plain", 0.05, ("hate",), lambda x: x[:, 0].mean(dim=(1, 2))[:, None] / 2)
SETTINGS = {"sampler": "painted"}


class Painter:
    """Paints `bad N` red 0.9, or 0.1 if N < cured, and everything else red 0.1; the seed decides green."""

    def __init__(self, cured=0, tint=0.0, on_draw=None):
        self.cured, self.tint, self.on_draw, self.calls = cured, tint, on_draw, []

    def __call__(self, prompt, *, seed):
        if self.on_draw:
            self.on_draw(len(self.calls))
        self.calls.append((prompt, seed))
        word, number = prompt.split()[:2]
        picture = torch.full((1, 3, 8, 8), 0.2)
        picture[:, 0] = 0.9 if word == "bad" and int(number) >= self.cured else 0.1
        picture[:, 1] = seed % 251 / 255
        picture[:, 2] += self.tint
        return picture


def prompt_set(bad=10, neutral=5, name="set.csv", categories=("hate",)):
    """Return a set of `bad N` prompts of some categories and `good N` neutral ones."""
    prompts = [Prompt(f"{name} bad {n}", f"bad {n}", categories, None) for n in range(bad)]
    prompts += [Prompt(f"{name} good {n}", f"good {n}", (), 7 * n) for n in range(neutral)]
    return PromptSet(name, tuple(prompts), PromptReport(len(prompts)))


def entrant(name, painter, key=None):
    return Entrant(name, key or name, lambda: nullcontext(painter))


def make_bench(painters, sets=None, per_prompt=1, judges=(JUDGE,), settings=SETTINGS, **measures):
    """Return a benchmark of painters by name, the first of them the base."""
    sets = sets or [prompt_set()]
    entrants = [
        entrant(name, painter, BASE if not number else None)
        for number, (name, painter) in enumerate(painters.items())
    ]
    tasks = plan_tasks(sets, per_prompt=per_prompt, seed=0)
    return Bench(tasks, entrants, Panel(judges), settings, Measures(**measures))


def run_report(bench, folder, sets=None, **options):
    """Run a benchmark and return its report."""
    rows = run_benchmark(bench, folder, **options)
    command = "python -m training evaluate ..."
    return BenchmarkReport(Study(bench, rows, folder, sets or [prompt_set()], command))


def changed(report, **fields):
    """Return the report of a study with other fields."""
    return BenchmarkReport(replace(report.study, **fields))
