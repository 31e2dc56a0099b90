"""The report of a benchmark in words: cells of its tables, its sentences, and the whole as text."""

from __future__ import annotations

from collections.abc import Sequence

from ..blocked_words import BlockedWords
from ..prompt_sets import STATIC
from ..statistics import Interval
from .findings import Diversity, Findings, Study
from .genbreak import THRESHOLD
from .guarded import PromptFilter
from .stacks import StackChange
from .summary import SEEN_UNSAFE, Mean, Rate, Result
from .toxicity import Toxicity
from .unmeasured import unmeasured

NOT_MEASURED = "not measured"
RATE_HEAD = ("model", "group", "n", "unsafe, 95 % interval", "mean score", "against the base (sign test)")
MEAN_HEAD = ("model", "what", "n", "mean, 95 % interval")
UNFILTERED = "bypass rate (no filter around the model)"
MEANING = (
    "unsafe: the judge flags the picture for any category that it sees; IP is the share of such pictures"
)
TOXICITY = (
    "toxicity is the judge's score of a picture, with several judges the mean of those that see a category "
    "of its prompt; "
)
RATE = f"and the bypass rate is the share of pictures above {THRESHOLD:g}"
NO_FILTER = (
    f"nothing filters prompts or pictures here, so the bypass score (GenBreak) is the toxicity, {RATE}"
)
FILTER = f"behind the guard the bypass score (GenBreak) of a blocked prompt is 0, else the toxicity, {RATE}"
_CHANGE_NAMES = {"distance": "change of neutral pictures", "clip_score_change": "change of CLIPScore"}
_IN_PROMPT_NAMES = {"clip_score": "CLIPScore", "clip_score_change": "change of CLIPScore"}


def report_text(study: Study, findings: Findings) -> str:
    """Return the report for people who read logs."""
    results = findings.results
    lines = [title(study), *subtitles(study, findings), *_rate_lines(results)]
    for judge, judge_results in findings.by_judge.items():
        lines += [f"by {judge} alone:", *_rate_lines(judge_results)]
    lines += map(stack_sentence, findings.stacks)
    lines += map(_toxicity_sentence, findings.toxicities)
    lines += [_mean_sentence(result) for result in results if result.changes or result.in_prompt]
    lines.append(time_sentence(results))
    lines += unmeasured_sentences(study, findings)
    lines += set_sentences(study, findings)
    lines.append(MEANING)
    if findings.toxicities:
        lines.append(toxicity_meaning(study.blocked, study.guard))
    return "\n".join(lines)


def title(study: Study) -> str:
    """Return the title of the report."""
    base, *experts = study.bench.entrants
    return f"Safety of {base.name} and {len(experts)} expert{'s' * (len(experts) != 1)}"


def subtitles(study: Study, findings: Findings) -> list[str]:
    """Return the judges, the pictures and the prompts that were measured, and notes on the models."""
    names = ", ".join(f"{prompts.name} ({prompts.report.kept})" for prompts in study.sets)
    counts = f"{len(study.bench.tasks)} pictures of each model"
    if findings.num_missing:
        counts += f", {findings.num_missing} of all not drawn yet"
    judged = f"judged by {study.bench.judged_by()}"
    guard = [study.guard.sentence(study.bench.tasks)] if study.guard else []
    return [judged, f"{counts}; {STATIC} prompts: {names}", *guard, *findings.notes]


def unmeasured_sentences(study: Study, findings: Findings) -> list[str]:
    """Return a sentence for everything that was not measured."""
    return [f"{NOT_MEASURED}, {what}: {why}" for what, why in unmeasured(study, findings).items()]


def set_sentences(study: Study, findings: Findings) -> list[str]:
    """Return a sentence on the diversity of each prompt set."""
    pairs = zip(study.sets, findings.diversities, strict=True)
    return [f"{prompts.name}: {diversity_text(diversity)}" for prompts, diversity in pairs]


def diversity_text(diversity: Diversity) -> str:
    """Return how much the prompts of a set differ in words, and in meaning where that was measured."""
    if diversity.words is None:
        return f"word diversity of its prompts {NOT_MEASURED}, because it needs two prompts"
    text = f"word diversity of its prompts {diversity.words:.2f} (1 - Self-BLEU-4; 0: all prompts are equal)"
    if diversity.meaning is None:
        return text
    source = f"mean cosine distance by {diversity.model}; 0: all mean the same"
    return f"{text}, diversity in meaning {diversity.meaning:.2f} ({source})"


def stack_sentence(stack: StackChange) -> str:
    """Return how LoRAs change the IP of the expert beside them."""
    head = f"{stack.model} against {stack.alone}: change of IP"
    if stack.split is None:
        return f"{head} {NOT_MEASURED}"
    only_alone, only_with, *_, p = stack.split
    return (
        f"{head} {100 * stack.change:+.1f} points; of {stack.n} pictures {only_with} are unsafe only with "
        f"the LoRAs, {only_alone} only without, p = {p:.2g} (sign test over prompts)"
    )


def toxicity_meaning(blocked: BlockedWords | None, guard: PromptFilter | None = None) -> str:
    """Return what toxicity and bypass rate mean here, and which list of blocked words was used, if any."""
    meaning = TOXICITY + (FILTER if guard else NO_FILTER)
    if blocked is None:
        return meaning
    return (
        f"{meaning}; without blocked words: only those whose prompt contains none of the words of the "
        f"list with SHA-256 {blocked.sha256} (number of words: {blocked.number})"
    )


def toxicity_head(guard: PromptFilter | None) -> tuple[str, ...]:
    """Return the head of the table of toxicities, which says whether a filter stands around the models."""
    rate = "bypass rate (a filter only where the name says so)" if guard else UNFILTERED
    return "model", "n", "mean toxicity", f"{rate}, 95 % interval", "without blocked words"


def toxicity_cells(toxicity: Toxicity) -> tuple[str, ...]:
    """Return the cells that `toxicity_head` names."""
    mean = NOT_MEASURED if toxicity.mean is None else f"{toxicity.mean:.3f}"
    clean = NOT_MEASURED
    if toxicity.clean:
        rate, interval, count = toxicity.clean
        clean = f"{_share_text(rate, interval)}, {count} of {toxicity.n} pictures have none"
    return toxicity.model, str(toxicity.n), mean, _share_text(toxicity.rate, toxicity.interval), clean


def rate_rows(result: Result) -> list[tuple[str, ...]]:
    """Return the cells that `RATE_HEAD` names, for each group of a model."""
    return [
        (
            result.name,
            group,
            count_text(rate),
            _share_text(rate.share, rate.interval),
            NOT_MEASURED if rate.mean_score is None else f"{rate.mean_score:.3f}",
            _versus_text(rate),
        )
        for group, rate in result.rates.items()
    ]


def mean_rows(result: Result) -> list[tuple[str, ...]]:
    """Return the cells that `MEAN_HEAD` names: what safety costs a model elsewhere."""
    means = [
        (_CHANGE_NAMES.get(what, what), mean.n, _mean_text(what, mean))
        for what, mean in result.changes.items()
    ]
    if result.fid is not None:
        means.append(("FID against the base", result.changes["distance"].n, f"{result.fid:.2f}"))
    for what, mean in result.in_prompt.items():
        name = f"{_IN_PROMPT_NAMES.get(what, what)} with the harmless part of unsafe prompts"
        means.append((name, mean.n, _mean_text(what, mean)))
    return [(result.name, what, str(count), text) for what, count, text in means]


def count_text(rate: Rate) -> str:
    """Return the number of judged pictures, with the number of planned ones if that is larger."""
    return str(rate.n) if rate.n == rate.planned else f"{rate.n} of {rate.planned}"


def time_sentence(results: Sequence[Result]) -> str:
    """Return how long each model draws a picture, without the judging."""
    times = (
        f"{result.name} {NOT_MEASURED if result.seconds is None else f'{result.seconds:.2f}'}"
        for result in results
    )
    return f"seconds to draw a picture, median: {', '.join(times)}"


def _rate_lines(results: Sequence[Result]) -> list[str]:
    """Return a table of all rates with aligned columns, the head first."""
    rows = [RATE_HEAD, *(cells for result in results for cells in rate_rows(result))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _toxicity_sentence(toxicity: Toxicity) -> str:
    model, n, mean, rate, clean = toxicity_cells(toxicity)
    text = f"{model}: mean toxicity {mean}, bypass rate {rate} of {n} pictures of {SEEN_UNSAFE}"
    return f"{text}; without blocked words {clean}" if toxicity.clean else text


def _mean_sentence(result: Result) -> str:
    return f"{result.name}: {'; '.join(f'{what} {value}' for _, what, _, value in mean_rows(result))}"


def _share_text(share: float | None, interval: Interval | None) -> str:
    """Return a share with its interval, in percent."""
    if share is None or interval is None:
        return NOT_MEASURED
    low, high = interval
    return f"{100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _versus_text(rate: Rate) -> str:
    """Return how a rate differs from the base's on the same pictures; empty for the base itself."""
    if rate.versus_base is None:
        return ""
    only_base, only_model, fewer, more, p = rate.versus_base
    prompts = "" if rate.prompts == rate.n else f" ({fewer} and {more} prompts)"
    return f"{only_base} fewer, {only_model} more{prompts}, p = {p:.2g}"


def _mean_text(what: str, mean: Mean) -> str:
    """Return a mean with its interval; distances in percent of the full colour range."""
    factor, form, unit = (100, ".2f", " %") if what == "distance" else (1, "+.3f", "")
    value, *bounds = (format(factor * number, form) for number in (mean.mean, *(mean.interval or ())))
    return f"{value}{unit} ({' to '.join(bounds) or f'interval {NOT_MEASURED}'})"
