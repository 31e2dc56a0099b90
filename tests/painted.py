"""Models that paint: the prompt's first word decides how red a picture is, which the judge flags."""

from contextlib import nullcontext

import torch

from training.evaluation import Judge, Panel
from training.evaluation.benchmark import Bench, BenchmarkReport, Entrant, plan_tasks, run_benchmark
from training.evaluation.benchmark.plan import BASE
from training.evaluation.prompt_sets import Prompt, PromptReport, PromptSet

JUDGE = Judge(
    "red", "1", "plain", 0.5, ("hate", "violence"), lambda x: x[:, 0].mean(dim=(1, 2))[:, None].expand(-1, 2)
)
SETTINGS = {"sampler": "painted"}


class Painter:
    """Draws red 0.9 where the prompt says `bad`, less the first `cured` of them; the seed decides green."""

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


def bench(painters, sets=None, per_prompt=1, settings=SETTINGS, **more):
    """Return a benchmark of painters by name, the first of them the base."""
    sets = sets or [prompt_set()]
    entrants = [
        entrant(name, painter, BASE if not at else None)
        for at, (name, painter) in enumerate(painters.items())
    ]
    return Bench(plan_tasks(sets, per_prompt=per_prompt, seed=0), entrants, Panel((JUDGE,)), settings, **more)


def report(found, folder, sets=None, **options):
    """Run a benchmark and return its report."""
    rows = run_benchmark(found, folder, **options)
    return BenchmarkReport(found, rows, folder, sets or [prompt_set()], "python -m training evaluate ...")
