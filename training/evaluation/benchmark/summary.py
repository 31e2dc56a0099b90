"""From rows to results: for each model and group of prompts what was found, how sure it is, what it cost."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...pairs.rows import prompt_key
from ...rules.categories import normalize_categories
from ..statistics import Interval, SignTest, mean_interval, share_interval, sign_test
from .plan import BASE, Entrant, Task
from .rows import HARMLESS, Key, is_compared, is_missing

SEEN_UNSAFE = "unsafe prompts that a judge sees"
NEUTRAL_GROUP = "neutral"
Rows = Mapping[Key, Mapping[str, Any]]


@dataclass(frozen=True)
class Rate:
    """How often a model's pictures of a group are judged unsafe.

    Attributes:
        n: pictures that are there and that a judge could judge.
        of: pictures that were asked for, those included that no judge can judge.
        prompts: how many prompts they are of.
        unsafe: how many it flags, for any category it sees.
        interval: 95 % interval of the share, see `share_interval`; None where nothing was measured.
        mean_score: mean of each picture's highest score, in [0, 1]; None likewise.
        versus_base: how it differs from the base on the same pictures; None for the base itself.
    """

    n: int
    of: int
    prompts: int
    unsafe: int
    interval: Interval | None
    mean_score: float | None
    versus_base: SignTest | None = None

    @property
    def share(self) -> float | None:
        """The IP of an unsafe group, the over-blocking of the neutral one; None: not measured."""
        return self.unsafe / self.n if self.n else None

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values."""
        found = {"n": self.n, "of": self.of}
        if self.share is None:
            return {**found, "unsafe": None, "ip": None, "low": None, "high": None, "not_measured": True}
        low, high = self.interval
        found |= {"prompts": self.prompts, "unsafe": self.unsafe, "ip": self.share, "low": low, "high": high}
        versus = self.versus_base._asdict() if self.versus_base else None
        return {**found, "mean_score": self.mean_score, "versus_base": versus}


@dataclass(frozen=True)
class Mean:
    """A mean over pictures, with its 95 % interval, see `mean_interval`; None: not measured."""

    n: int
    mean: float
    interval: Interval | None

    def facts(self) -> dict[str, Any]:
        """Return everything as plain values."""
        low, high = self.interval or (None, None)
        return {"n": self.n, "mean": self.mean, "low": low, "high": high}


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
        in_prompt: what -> how the pictures of unsafe prompts fit the harmless part of these (in-prompt
            retention of Six-CD, arXiv:2406.14855): the number itself, and its change against the base.
    """

    name: str
    key: str
    rates: dict[str, Rate]
    kept: dict[str, Mean] = field(default_factory=dict)
    seconds: float | None = None
    fid: float | None = None
    in_prompt: dict[str, Mean] = field(default_factory=dict)


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
    asked = group_tasks(tasks, [name for task in tasks for name in task.prompt.categories])
    counts = {name: len(own) for name, own in asked.items()}
    mixed = [task for task in tasks if task.prompt.harmless and not task.is_benign]
    return [_result(rows, entrant, groups, counts, mixed) for entrant in entrants]


def group_tasks(tasks: Sequence[Task], covered: Sequence[str]) -> dict[str, list[Task]]:
    """Return the tasks of each group: unsafe, each category, each set if there are several, neutral.

    An unsafe one is among them where a judge sees at least one of its categories. A group that no judge sees
    is there and empty: not measured.
    """
    harmful = [task for task in tasks if not task.is_benign]
    seen = [task for task in harmful if any(name in covered for name in task.prompt.categories)]
    groups = {SEEN_UNSAFE: seen} if harmful else {}
    for name in normalize_categories({name for task in harmful for name in task.prompt.categories}):
        groups[name] = [task for task in seen if name in task.prompt.categories and name in covered]
    sets = dict.fromkeys(name for task in harmful for name in task.sets)
    for name in sets if len(sets) > 1 else ():
        groups[f"set {name}"] = [task for task in seen if name in task.sets]
    neutral = [task for task in tasks if task.is_benign]
    return groups | ({NEUTRAL_GROUP: neutral} if neutral else {})


def unseen_prompts(tasks: Sequence[Task], covered: Sequence[str]) -> tuple[int, int, int]:
    """Return how many unsafe prompts there are, of how many judges see nothing, and of how many only a part.

    Args:
        tasks: what every model had to draw.
        covered: categories that the judges see.
    """
    wanted = {task.prompt.id: set(task.prompt.categories) for task in tasks if not task.is_benign}
    unseen = sum(names.isdisjoint(covered) for names in wanted.values())
    whole = sum(names.issubset(covered) for names in wanted.values())
    return len(wanted), unseen, len(wanted) - unseen - whole


def missing_rows(rows: Rows, tasks: Sequence[Task], entrants: Sequence[Entrant]) -> int:
    """Count the pictures that are not drawn yet."""
    return sum(
        is_missing(rows.get(_key(entrant.key, task)), is_benign=task.is_benign)
        for entrant in entrants
        for task in tasks
    )


def drawn_by(rows: Rows, keys: Sequence[str], tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks that each of some models has drawn."""
    return [task for task in tasks if all(_key(key, task) in rows for key in keys)]


def compare(rows: Rows, reference: str, key: str, tasks: Sequence[Task]) -> SignTest | None:
    """Return how often two models are unsafe on the same pictures; None where there is none.

    Args:
        rows: of all models.
        reference: key of the one that is compared with, such as the base.
        key: of the other.
        tasks: of a group.
    """
    both = drawn_by(rows, (reference, key), tasks)
    pairs = ([rows[_key(name, task)]["unsafe"] for task in both] for name in (reference, key))
    return sign_test(*pairs, [_prompt(task) for task in both])


def _result(
    rows: Rows,
    entrant: Entrant,
    groups: Mapping[str, Sequence[Task]],
    counts: Mapping[str, int],
    mixed: Sequence[Task],
) -> Result:
    own = [row for (key, *_), row in rows.items() if key == entrant.key]
    return Result(
        entrant.name,
        entrant.key,
        {name: _rate(rows, entrant.key, tasks, counts[name]) for name, tasks in groups.items()},
        _kept(rows, entrant.key, groups.get(NEUTRAL_GROUP, ())),
        statistics.median(row["seconds"] for row in own) if own else None,
        in_prompt=_in_prompt(rows, entrant.key, mixed),
    )


def _rate(rows: Rows, key: str, tasks: Sequence[Task], of: int) -> Rate:
    there = [task for task in tasks if _key(key, task) in rows]
    found, prompts = [rows[_key(key, task)] for task in there], [_prompt(task) for task in there]
    unsafe = [row["unsafe"] for row in found]
    scores = [max(row["scores"].values()) for row in found]
    mean = statistics.fmean(scores) if scores else None
    versus = None if key == BASE else compare(rows, BASE, key, tasks)
    interval = share_interval(unsafe, prompts)
    return Rate(len(found), of, len(set(prompts)), sum(unsafe), interval, mean, versus)


def _kept(rows: Rows, key: str, tasks: Sequence[Task]) -> dict[str, Mean]:
    """Return the distance to the base's pictures, and the change of every other number against the base."""
    both = [
        task for task in tasks if all(is_compared(rows.get(_key(each, task), {})) for each in (BASE, key))
    ]
    pairs = [(rows[_key(BASE, task)], rows[_key(key, task)]) for task in both]
    if not pairs or key == BASE:
        return {}
    own = {"distance": [row["distance"] for _, row in pairs]}
    for name in sorted(pairs[0][1].get("measures", ())):
        own[f"{name}_change"] = [row["measures"][name] - base["measures"][name] for base, row in pairs]
    return _means(own, both)


def _in_prompt(rows: Rows, key: str, tasks: Sequence[Task]) -> dict[str, Mean]:
    """Return how pictures fit the harmless part of their unsafe prompts, and the change against the base."""
    both = [
        task for task in tasks if all(rows.get(_key(each, task), {}).get(HARMLESS) for each in (BASE, key))
    ]
    pairs = [(rows[_key(BASE, task)][HARMLESS], rows[_key(key, task)][HARMLESS]) for task in both]
    found = {}
    for name in sorted(pairs[0][1]) if pairs else ():
        found[name] = [own[name] for _, own in pairs]
        if key != BASE:
            found[f"{name}_change"] = [own[name] - base[name] for base, own in pairs]
    return _means(found, both)


def _means(numbers: Mapping[str, Sequence[float]], tasks: Sequence[Task]) -> dict[str, Mean]:
    prompts, found = [_prompt(task) for task in tasks], {}
    for name, values in numbers.items():
        interval = mean_interval(values, prompts)
        if name == "distance" and interval:  # is never below 0
            interval = max(0.0, interval[0]), interval[1]
        found[name] = Mean(len(values), statistics.fmean(values), interval)
    return found


def _prompt(task: Task) -> str:
    return prompt_key(task.prompt.prompt)


def _key(key: str, task: Task) -> Key:
    return key, task.prompt.id, task.number
