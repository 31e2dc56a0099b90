"""From rows to results: per model and group of prompts, how often it is unsafe, how surely, at what cost."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ...rules.categories import normalize_categories
from .. import Panel
from ..statistics import Interval, SignTest, mean_interval, share_interval, sign_test
from .plan import BASE, Entrant, Task
from .rows import HARMLESS, JUDGES, Rows, is_compared, is_missing

SEEN_UNSAFE = "unsafe prompts that a judge sees"
NEUTRAL_GROUP = "neutral"


@dataclass(frozen=True)
class Rate:
    """How often a model's pictures of a group of prompts are judged unsafe.

    Attributes:
        n: pictures that were drawn and that a judge covers.
        planned: pictures that were planned, including those that no judge covers.
        prompts: number of prompts of the n pictures.
        unsafe: pictures flagged for any category that the judges cover.
        interval: 95 % interval of the share, see `share_interval`; None if n is 0.
        mean_score: mean over pictures of the highest score, in [0, 1]; None if n is 0.
        versus_base: comparison with the base on the same pictures; None for the base itself.
    """

    n: int
    planned: int
    prompts: int
    unsafe: int
    interval: Interval | None
    mean_score: float | None
    versus_base: SignTest | None = None

    @property
    def share(self) -> float | None:
        """Unsafe share: the IP of an unsafe group, the over-blocking of neutral prompts; None if n is 0."""
        return self.unsafe / self.n if self.n else None


@dataclass(frozen=True)
class Mean:
    """A mean over n pictures and its 95 % interval, see `mean_interval`; None: too few prompts."""

    n: int
    mean: float
    interval: Interval | None


@dataclass(frozen=True)
class Result:
    """The results of one model.

    Attributes:
        name: name of the model.
        key: key of its weights.
        rates: group -> rate, in the order of the report.
        changes: how neutral pictures differ from the base's: `distance`, and the change of other measures.
        seconds: median time to draw a picture; None: not measured.
        fid: FID of its neutral pictures against the base's; None: not measured.
        in_prompt: how pictures of unsafe prompts fit the harmless part of these prompts (in-prompt retention
            of Six-CD, arXiv:2406.14855): each measure, and its change against the base.
    """

    name: str
    key: str
    rates: dict[str, Rate]
    changes: dict[str, Mean] = field(default_factory=dict)
    seconds: float | None = None
    fid: float | None = None
    in_prompt: dict[str, Mean] = field(default_factory=dict)


def summarize(
    rows: Rows, tasks: Sequence[Task], entrants: Sequence[Entrant], covered: Sequence[str]
) -> list[Result]:
    """Return the result of each model, in order.

    Args:
        rows: rows of `run_benchmark`; those of other models or tasks are ignored.
        tasks: what every model had to draw.
        entrants: the base first.
        covered: categories that the judges cover.
    """
    groups = group_tasks(tasks, covered)
    planned = group_tasks(tasks, [name for task in tasks for name in task.prompt.categories])
    counts = {name: len(group) for name, group in planned.items()}
    with_harmless = [task for task in tasks if task.prompt.harmless and not task.is_benign]
    results = []
    for entrant in entrants:
        key = entrant.key
        seconds = [row["seconds"] for (model, *_), row in rows.items() if model == key]
        result = Result(
            name=entrant.name,
            key=key,
            rates={name: _rate(rows, key, group, counts[name]) for name, group in groups.items()},
            changes=_changes(rows, key, groups.get(NEUTRAL_GROUP, ())),
            seconds=statistics.median(seconds) if seconds else None,
            in_prompt=_in_prompt(rows, key, with_harmless),
        )
        results.append(result)
    return results


def summarize_by_judge(
    rows: Rows, tasks: Sequence[Task], entrants: Sequence[Entrant], panel: Panel
) -> dict[str, list[Result]]:
    """Return, by the label of each judge, the results by its verdicts alone; empty for a single judge.

    Rows of earlier versions do not hold these verdicts, so their pictures are missing from the rates.
    """
    results = {}
    for judge in panel.judges if len(panel.judges) > 1 else ():
        label = judge.label()
        judge_rows = {key: {**row, **row[JUDGES][label]} for key, row in rows.items() if JUDGES in row}
        results[label] = summarize(judge_rows, tasks, entrants, judge.categories)
    return results


def group_tasks(tasks: Sequence[Task], covered: Sequence[str]) -> dict[str, list[Task]]:
    """Return the tasks of each group: unsafe, each category, each set if there are several, neutral.

    The unsafe group holds the tasks with at least one category that the judges cover. A category that no
    judge covers has an empty group: not measured.
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


def count_missing(rows: Rows, tasks: Sequence[Task], entrants: Sequence[Entrant]) -> int:
    """Return how many pictures must still be drawn."""
    return sum(
        is_missing(rows.get(task.row_key(entrant.key)), is_benign=task.is_benign)
        for entrant in entrants
        for task in tasks
    )


def drawn_by(rows: Rows, keys: Sequence[str], tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks that every one of the models with these keys has drawn."""
    return [task for task in tasks if all(task.row_key(key) in rows for key in keys)]


def compare(rows: Rows, reference: str, key: str, tasks: Sequence[Task]) -> SignTest | None:
    """Test whether two models are unsafe equally often on the pictures that both drew.

    Args:
        rows: rows of all models.
        reference: key of the model to compare with, such as the base.
        key: key of the other model.
        tasks: tasks of a group.

    Returns:
        The test over prompts; None if there is no common picture.
    """
    both = drawn_by(rows, (reference, key), tasks)
    reference_unsafe, unsafe = (
        [rows[task.row_key(model)]["unsafe"] for task in both] for model in (reference, key)
    )
    return sign_test(reference_unsafe, unsafe, [task.prompt_key for task in both])


def _rate(rows: Rows, key: str, tasks: Sequence[Task], planned: int) -> Rate:
    drawn = drawn_by(rows, (key,), tasks)
    model_rows, prompts = [rows[task.row_key(key)] for task in drawn], [task.prompt_key for task in drawn]
    unsafe = [row["unsafe"] for row in model_rows]
    scores = [max(row["scores"].values()) for row in model_rows]
    return Rate(
        n=len(model_rows),
        planned=planned,
        prompts=len(set(prompts)),
        unsafe=sum(unsafe),
        interval=share_interval(unsafe, prompts),
        mean_score=statistics.fmean(scores) if scores else None,
        versus_base=None if key == BASE else compare(rows, BASE, key, tasks),
    )


def _changes(rows: Rows, key: str, tasks: Sequence[Task]) -> dict[str, Mean]:
    """Return the distance to the base's pictures, and the change of each measure against the base."""
    both = [
        task for task in tasks if all(is_compared(rows.get(task.row_key(model), {})) for model in (BASE, key))
    ]
    pairs = [(rows[task.row_key(BASE)], rows[task.row_key(key)]) for task in both]
    if not pairs or key == BASE:
        return {}
    values = {"distance": [row["distance"] for _, row in pairs]}
    for name in sorted(pairs[0][1].get("measures", ())):
        values[f"{name}_change"] = [row["measures"][name] - base["measures"][name] for base, row in pairs]
    return _means(values, both)


def _in_prompt(rows: Rows, key: str, tasks: Sequence[Task]) -> dict[str, Mean]:
    """Return how pictures fit the harmless part of their unsafe prompts, and the change against the base."""
    both = [
        task
        for task in tasks
        if all(rows.get(task.row_key(model), {}).get(HARMLESS) for model in (BASE, key))
    ]
    pairs = [(rows[task.row_key(BASE)][HARMLESS], rows[task.row_key(key)][HARMLESS]) for task in both]
    values = {}
    for name in sorted(pairs[0][1]) if pairs else ():
        values[name] = [fit[name] for _, fit in pairs]
        if key != BASE:
            values[f"{name}_change"] = [fit[name] - base_fit[name] for base_fit, fit in pairs]
    return _means(values, both)


def _means(values_by_name: Mapping[str, Sequence[float]], tasks: Sequence[Task]) -> dict[str, Mean]:
    prompts, means = [task.prompt_key for task in tasks], {}
    for name, values in values_by_name.items():
        interval = mean_interval(values, prompts)
        if name == "distance" and interval:  # a distance is never negative
            interval = max(0.0, interval[0]), interval[1]
        means[name] = Mean(len(values), statistics.fmean(values), interval)
    return means
