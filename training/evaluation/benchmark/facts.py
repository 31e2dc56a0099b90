"""The report of a benchmark as plain values, which `report.json` holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..prompt_sets import STATIC, PromptSet
from ..statistics import SignTest
from .findings import Diversity, Findings, Study
from .genbreak import THRESHOLD
from .stacks import StackChange
from .summary import Mean, Rate, Result
from .toxicity import CleanBypass, Toxicity
from .unmeasured import unmeasured
from .wording import MEANING, toxicity_meaning


def report_facts(study: Study, findings: Findings) -> dict[str, Any]:
    """Return the whole report as plain values; only `timing` depends on the clock."""
    label, results = study.bench.judged_by(), findings.results
    judged = {"judge": label, "kind": STATIC}
    return {
        "version": 1,
        "command": study.command,
        **judged,
        "meaning": MEANING,
        "notes": list(findings.notes),
        "settings": dict(study.bench.settings),
        "sets": [
            _set_facts(prompts, diversity)
            for prompts, diversity in zip(study.sets, findings.diversities, strict=True)
        ],
        "missing": findings.num_missing,
        "not_measured": unmeasured(study, findings),
        "rates": _rates_facts(results, label),
        "rates_by_judge": [
            facts
            for judge, judge_results in findings.by_judge.items()
            for facts in _rates_facts(judge_results, judge)
        ],
        "stacks": [{**_stack_facts(stack), **judged} for stack in findings.stacks],
        "toxicity": {
            "meaning": toxicity_meaning(study.blocked, study.guard),
            "threshold": THRESHOLD,
            "blocked_words": study.blocked.facts() if study.blocked else None,
            "models": [{**_toxicity_facts(toxicity), **judged} for toxicity in findings.toxicities],
        },
        "kept": _means_facts((result, result.changes) for result in results),
        "in_prompt": _means_facts((result, result.in_prompt) for result in results),
        "guard": _guard_facts(study),
        "fid": {result.name: result.fid for result in results},
        "timing": {result.name: result.seconds for result in results},
    }


def _guard_facts(study: Study) -> dict[str, Any] | None:
    guard = study.guard
    if guard is None:
        return None
    return {"name": guard.name, **guard.facts, "blocks": guard.sentence(study.bench.tasks)}


def _set_facts(prompts: PromptSet, diversity: Diversity) -> dict[str, Any]:
    return {
        "name": prompts.name,
        "kind": prompts.kind,
        "word_diversity": diversity.words,
        "meaning_diversity": diversity.meaning,
        "sentence_model": diversity.model,
        **prompts.report.facts(),
    }


def _rates_facts(results: Sequence[Result], judge: str) -> list[dict[str, Any]]:
    return [
        {
            "model": result.name,
            "key": result.key,
            "group": group,
            **_rate_facts(rate),
            "judge": judge,
            "kind": STATIC,
        }
        for result in results
        for group, rate in result.rates.items()
    ]


def _rate_facts(rate: Rate) -> dict[str, Any]:
    counts = {"n": rate.n, "of": rate.planned}
    if rate.share is None:
        return {**counts, "unsafe": None, "ip": None, "low": None, "high": None, "not_measured": True}
    low, high = rate.interval
    return {
        **counts,
        "prompts": rate.prompts,
        "unsafe": rate.unsafe,
        "ip": rate.share,
        "low": low,
        "high": high,
        "mean_score": rate.mean_score,
        "versus_base": rate.versus_base._asdict() if rate.versus_base else None,
    }


def _stack_facts(stack: StackChange) -> dict[str, Any]:
    split = stack.split or SignTest(*[None] * 5)
    return {
        "model": stack.model,
        "alone": stack.alone,
        "n": stack.n,
        "ip_change": stack.change,
        "only_alone": split.only_base,
        "only_with": split.only_other,
        "p": split.p,
        "prompts_fewer": split.fewer,
        "prompts_more": split.more,
    }


def _toxicity_facts(toxicity: Toxicity) -> dict[str, Any]:
    low, high = toxicity.interval or (None, None)
    clean = toxicity.clean or CleanBypass(None, (None, None), None)
    return {
        "model": toxicity.model,
        "n": toxicity.n,
        "mean_toxicity": toxicity.mean,
        "mean_bypass_score": toxicity.bypass_score,
        "bypass_rate": toxicity.rate,
        "low": low,
        "high": high,
        "clean_bypass_rate": clean.rate,
        "clean_low": clean.interval[0],
        "clean_high": clean.interval[1],
        "n_without_blocked_words": clean.n,
    }


def _means_facts(means: Iterable[tuple[Result, Mapping[str, Mean]]]) -> list[dict[str, Any]]:
    return [
        {"model": result.name, "key": result.key, "what": what, **_mean_facts(mean)}
        for result, by_name in means
        for what, mean in by_name.items()
    ]


def _mean_facts(mean: Mean) -> dict[str, Any]:
    low, high = mean.interval or (None, None)
    return {"n": mean.n, "mean": mean.mean, "low": low, "high": high}
