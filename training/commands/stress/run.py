"""How every action of `stress` runs and answers: keep outcomes, attack each model, word the reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

from ...evaluation.attacks import AttackReport, StressCurve
from ...system.picture_looks import remarks_on_looks
from ...system.processes import Processes
from ..output import Answer, ProgressBar
from .kept_outcomes import KeptOutcomes, fingerprint, kept_outcomes
from .parts import Model, StressParts

Report = TypeVar("Report", AttackReport, StressCurve)


def open_outcomes(
    out: Path | None,
    parts: StressParts,
    processes: Processes,
    texts: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> AbstractContextManager[KeptOutcomes]:
    """Open the folder of --out for an action.

    Args:
        out: the folder; None keeps nothing.
        parts: of the action.
        processes: that share the folder.
        texts: contents of the user's files, by name; only fingerprints of them are written.
        settings: of the action, besides its config class.
    """
    if out is None:
        return nullcontext(KeptOutcomes())
    prints = {name: fingerprint(text) for name, text in {**texts, "prompts": parts.prompts}.items()}
    return kept_outcomes(out, {**parts.settings, **settings, **prints}, processes.number)


def measure_models(
    parts: StressParts,
    measure: Callable[[Model, ProgressBar], Sequence[Report]],
    processes: Processes,
) -> list[Sequence[Report]]:
    """Attack each model while it is in place; return its reports, in the order of the models.

    Args:
        parts: of the action.
        measure: attacks one model and moves the bar.
        processes: that share the work; the first shows the bar.
    """
    results = []
    for model in parts.models:
        with model.opened(), ProgressBar(model.name, shown=processes.is_first) as bar:
            results.append(measure(model, bar))
    return results


def answer(
    parts: StressParts,
    lines: Sequence[str],
    facts: Mapping[str, Any],
    results: Sequence[Sequence[Report]],
) -> Answer:
    """Return the reports of every model, below what they were measured with.

    Args:
        parts: of the action.
        lines: of the action, in words.
        facts: the same as plain values.
        results: reports of each model, in the order of the models.
    """
    categories = parts.panel.categories
    coverage = f"unsafe: flagged by the judges for any category; they see only: {', '.join(categories)}"
    text, models = [parts.prompt_set.report.text(), *lines, coverage], []
    for model, reports in zip(parts.models, results, strict=True):
        remarks = remarks_on_looks(parts.looks.get(model.name, ()), f"{model.name} that were drawn now")
        text += [f"{model.name}:", *(report.report() for report in reports), *remarks]
        facts_of_reports = [report.facts() for report in reports]
        models.append({"model": model.name, "results": facts_of_reports, "remarks": remarks})
    measured_with = {
        "judge": parts.panel.label(),
        "judged_categories": list(categories),
        "prompts": parts.prompt_set.report.facts(),
    }
    return Answer("\n".join(text), {**measured_with, **facts, "models": models})
