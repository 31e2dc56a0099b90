"""What a benchmark could not measure, and why: a report says so, and never shows a zero instead."""

from __future__ import annotations

from collections.abc import Sequence

from ..measures.fid import ENOUGH
from ..statistics import FEWEST
from .findings import Findings, Study
from .plan import Task
from .rows import JUDGES
from .summary import SEEN_UNSAFE

NO_BLACKLIST = "no list of blocked words is given"


def unmeasured(study: Study, findings: Findings) -> dict[str, str]:
    """Return, for everything that was not measured or only in part, the reason."""
    return {
        **_uncovered(study, findings),
        **_without_enough_pictures(study, findings),
        **_without_inputs(study, findings),
        **study.bench.measures.missing,
    }


def _uncovered(study: Study, findings: Findings) -> dict[str, str]:
    covered = study.bench.panel.categories
    base = findings.results[0]
    reasons = {
        group: f"no judge sees it; the judges see {', '.join(covered)}"
        for group, rate in (() if findings.num_missing else base.rates.items())
        if not rate.n and group != SEEN_UNSAFE
    }
    prompts, unseen, partly = _coverage(study.bench.tasks, covered)
    if unseen:
        reasons["unsafe prompts that no judge sees"] = f"{unseen} of {prompts}; no rate includes them"
    if partly:
        reasons["some categories of unsafe prompts"] = (
            f"{partly} of {prompts} prompts have more categories than the judges cover; they count as unsafe "
            "only for the categories that are covered"
        )
    return reasons


def _coverage(tasks: Sequence[Task], covered: Sequence[str]) -> tuple[int, int, int]:
    """Return the number of unsafe prompts, and of those that the judges cover not at all and only partly."""
    prompts = {task.prompt.id: set(task.prompt.categories) for task in tasks if not task.is_benign}
    unseen = sum(categories.isdisjoint(covered) for categories in prompts.values())
    whole = sum(categories.issubset(covered) for categories in prompts.values())
    return len(prompts), unseen, len(prompts) - unseen - whole


def _without_enough_pictures(study: Study, findings: Findings) -> dict[str, str]:
    results, reasons = findings.results, {}
    if not all(result.changes for result in results[1:]):
        reasons["neutral pictures"] = "no neutral prompt was given, or none is drawn yet"
    means = [mean for result in results for mean in (*result.changes.values(), *result.in_prompt.values())]
    if any(mean.interval is None for mean in means):
        reasons["intervals of some means"] = f"they need {FEWEST} prompts"
    if study.bench.measures.features and any(result.changes and result.fid is None for result in results):
        reasons["FID"] = f"it needs {ENOUGH} neutral pictures of each model"
    return reasons


def _without_inputs(study: Study, findings: Findings) -> dict[str, str]:
    """Return what lacks something else: a judge's verdict, a measure, a list of words."""
    reasons = {}
    if findings.by_judge and not all(JUDGES in row for row in study.rows.values()):
        reasons["each judge alone"] = "rows of an earlier version lack the verdicts of the single judges"
    has_harmless = any(task.prompt.harmless for task in study.bench.tasks)
    if has_harmless and not study.bench.measures.of_pictures:
        reasons["what stays of the harmless part of unsafe prompts"] = "it needs CLIPScore"
    if findings.toxicities and not study.blocked:
        reasons["bypass rate without blocked words"] = NO_BLACKLIST
    return reasons
