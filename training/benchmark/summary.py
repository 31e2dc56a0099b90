"""From rows to results: for each model and group of prompts what was found, how sure it is, what it cost."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..evaluation.statistics import Interval, McNemar, bootstrap, mcnemar, wilson
from ..taxonomy import normalize_categories
from .plan import BASE, Entrant, Task
from .rows import Key

ALL_UNSAFE = "all unsafe prompts"
NEUTRAL_GROUP = "neutral"
Rows = Mapping[Key, Mapping[str, Any]]


@dataclass(frozen=True)
class Rate:
    """How often a model's pictures of a group are judged unsafe.

    Attributes:
        n: pictures that are there and that a judge could judge.
        unsafe: how many it flags, for any category it sees.
        interval: 95 % interval of the share; None where nothing was measured.
        mean_score: mean of each picture's highest score, in [0, 1]; None likewise.
        versus_base: how it differs from the base on the same pictures; None for the base itself.
    """

    n: int
    unsafe: int
    interval: Interval | None
    mean_score: float | None
    versus_base: McNemar | None = None

    @property
    def share(self) -> float | None:
        """The IP of an unsafe group, the over-blocking of the neutral one; None: not measured."""
        return self.unsafe / self.n if self.n else None


@dataclass(frozen=True)
class Mean:
    """A mean over neutral pictures, with its 95 % bootstrap interval."""

    n: int
    mean: float
    interval: Interval | None


@dataclass(frozen=True)
class Result:
    """What was found of one model.

    Attributes:
        name: of the model.
        key: of its weights.
        rates: group -> rate, in the order of the report.
        kept: what -> how far neutral pictures are from the base's: `distance`, and the change of others.
        seconds: median time to draw a picture; None: not measured.
        fid: of its neutral pictures against the base's; None: not measured.
    """

    name: str
    key: str
    rates: dict[str, Rate]
    kept: dict[str, Mean] = field(default_factory=dict)
    seconds: float | None = None
    fid: float | None = None


def summarize(
    rows: Rows, tasks: Sequence[Task], entrants: Sequence[Entrant], covered: Sequence[str]
) -> list[Result]:
    """Return the result of each model, in order.

    Args:
        rows: of `run_benchmark`; those of other models or tasks are left alone.
        tasks: what every model had to draw.
        entrants: the base first.
        covered: categories that the judges see.
    """
    groups = group_tasks(tasks, covered)
    return [_result(rows, entrant, groups) for entrant in entrants]


def group_tasks(tasks: Sequence[Task], covered: Sequence[str]) -> dict[str, list[Task]]:
    """Return the tasks of each group: all unsafe, each category, each set if there are several, neutral.

    A group that no judge sees is there and empty: not measured.
    """
    harmful = [task for task in tasks if not task.is_benign]
    seen = [task for task in harmful if any(name in covered for name in task.prompt.categories)]
    groups = {ALL_UNSAFE: seen} if harmful else {}
    for name in normalize_categories({name for task in harmful for name in task.prompt.categories}):
        groups[name] = [task for task in seen if name in task.prompt.categories and name in covered]
    sets = dict.fromkeys(name for task in harmful for name in task.sets)
    for name in sets if len(sets) > 1 else ():
        groups[f"set {name}"] = [task for task in seen if name in task.sets]
    neutral = [task for task in tasks if task.is_benign]
    return groups | ({NEUTRAL_GROUP: neutral} if neutral else {})


def missing_rows(rows: Rows, tasks: Sequence[Task], entrants: Sequence[Entrant]) -> int:
    """Count the pictures that are not drawn yet."""
    return sum(_key(entrant.key, task) not in rows for entrant in entrants for task in tasks)


def _result(rows: Rows, entrant: Entrant, groups: Mapping[str, Sequence[Task]]) -> Result:
    own = [row for (key, *_), row in rows.items() if key == entrant.key]
    return Result(
        entrant.name,
        entrant.key,
        {name: _rate(rows, entrant.key, tasks) for name, tasks in groups.items()},
        _kept(rows, entrant.key, groups.get(NEUTRAL_GROUP, ())),
        statistics.median(row["seconds"] for row in own) if own else None,
    )


def _rate(rows: Rows, key: str, tasks: Sequence[Task]) -> Rate:
    found = [rows[_key(key, task)] for task in tasks if _key(key, task) in rows]
    unsafe = sum(row["unsafe"] for row in found)
    scores = [max(row["scores"].values()) for row in found]
    mean = statistics.fmean(scores) if scores else None
    versus = None if key == BASE else _versus_base(rows, key, tasks)
    return Rate(len(found), unsafe, wilson(unsafe, len(found)), mean, versus)


def _versus_base(rows: Rows, key: str, tasks: Sequence[Task]) -> McNemar | None:
    both = [task for task in tasks if _key(key, task) in rows and _key(BASE, task) in rows]
    base, own = ([rows[_key(name, task)]["unsafe"] for task in both] for name in (BASE, key))
    return mcnemar(base, own)


def _kept(rows: Rows, key: str, tasks: Sequence[Task]) -> dict[str, Mean]:
    """Return the distance to the base's pictures, and the change of every other number against the base."""
    pairs = [
        (rows[_key(BASE, task)], rows[_key(key, task)])
        for task in tasks
        if _key(key, task) in rows and _key(BASE, task) in rows
    ]
    pairs = [pair for pair in pairs if all("distance" in row for row in pair)]  # drawn as neutral ones
    if not pairs or key == BASE:
        return {}
    own = {"distance": [row["distance"] for _, row in pairs]}
    for name in sorted(pairs[0][1].get("measures", ())):
        own[f"{name}_change"] = [row["measures"][name] - base["measures"][name] for base, row in pairs]
    return {name: _mean(name, values) for name, values in own.items()}


def _mean(name: str, values: Sequence[float]) -> Mean:
    samples = torch.tensor(values, dtype=torch.float64)
    return Mean(len(values), float(samples.mean()), bootstrap(samples, torch.mean, name=name))


def _key(key: str, task: Task) -> Key:
    return key, task.prompt.id, task.number
