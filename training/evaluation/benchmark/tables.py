"""Results as lines of text, for logs and pages alike."""

from __future__ import annotations

from collections.abc import Sequence

from .summary import Mean, Rate, Result

NOT_MEASURED = "not measured"
HEAD = ("model", "group", "n", "unsafe, 95 % interval", "mean score", "against the base (sign test)")
IN_PROMPT_NAMES = {"clip_score": "CLIPScore", "clip_score_change": "change of CLIPScore"}
KEPT_NAMES = {"distance": "change of neutral pictures", "clip_score_change": "change of CLIPScore"}


def rate_lines(results: Sequence[Result]) -> list[str]:
    """Return a table of all rates, its columns aligned, the head first."""
    rows = [HEAD, *(cells for result in results for cells in rate_rows(result))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def rate_rows(result: Result) -> list[tuple[str, ...]]:
    """Return the cells of each group of a model, as `HEAD` names them."""
    return [
        (result.name, group, count_text(rate), share_text(rate), _score_text(rate), versus_text(rate))
        for group, rate in result.rates.items()
    ]


def count_text(rate: Rate) -> str:
    """Return how many pictures were judged, and of how many that were asked for where that is more."""
    return str(rate.n) if rate.n == rate.of else f"{rate.n} of {rate.of}"


def share_text(rate: Rate) -> str:
    """Return a rate with its interval, in percent."""
    if rate.share is None or rate.interval is None:
        return NOT_MEASURED
    low, high = rate.interval
    return f"{100 * rate.share:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def versus_text(rate: Rate) -> str:
    """Return how a rate differs from the base's on the same pictures; empty for the base itself."""
    if rate.versus_base is None:
        return ""
    only_base, only_own, fewer, more, p = rate.versus_base
    prompts = "" if rate.prompts == rate.n else f" ({fewer} and {more} prompts)"
    return f"{only_base} fewer, {only_own} more{prompts}, p = {p:.2g}"


def kept_line(result: Result) -> str:
    """Return what a model costs on neutral pictures and beside what is unsafe in prompts, as a line."""
    parts = [f"{what} {value}" for what, _, value in (*kept_rows(result), *in_prompt_rows(result))]
    return f"{result.name}: {'; '.join(parts)}"


def time_line(results: Sequence[Result]) -> str:
    """Return how long each model takes for a picture, judging left out."""
    times = (
        f"{result.name} {NOT_MEASURED if result.seconds is None else f'{result.seconds:.2f}'}"
        for result in results
    )
    return f"seconds to draw a picture, median: {', '.join(times)}"


def in_prompt_rows(result: Result) -> list[tuple[str, str, str]]:
    """Return how pictures fit the harmless part of their unsafe prompts: what, of how many, how much."""
    return [
        (
            f"{IN_PROMPT_NAMES.get(what, what)} with the harmless part of unsafe prompts",
            str(mean.n),
            mean_text(what, mean),
        )
        for what, mean in result.in_prompt.items()
    ]


def diversity_text(words: float | None, meaning: float | None = None, model: str | None = None) -> str:
    """Return how far the prompts of a set differ in words, and in meaning where a model tells it."""
    if words is None:
        return f"word diversity of its prompts {NOT_MEASURED}, for it holds only one"
    text = f"word diversity of its prompts {words:.2f} (1 - Self-BLEU-4; 0: all say the same words)"
    if meaning is None:
        return text
    return (
        f"{text}, diversity in meaning {meaning:.2f} (mean cosine distance by {model}; 0: all mean the same)"
    )


def kept_rows(result: Result) -> list[tuple[str, str, str]]:
    """Return what a model costs on neutral pictures: what, on how many, how much."""
    rows = [
        (KEPT_NAMES.get(what, what), str(mean.n), mean_text(what, mean)) for what, mean in result.kept.items()
    ]
    if result.fid is not None:
        rows.append(("FID against the base", str(result.kept["distance"].n), f"{result.fid:.2f}"))
    return rows


def mean_text(what: str, mean: Mean) -> str:
    """Return a mean with its interval; distances in percent of the full range of colour."""
    factor, form, unit = (100, ".2f", " %") if what == "distance" else (1, "+.3f", "")
    shown, *bounds = (format(factor * value, form) for value in (mean.mean, *(mean.interval or ())))
    return f"{shown}{unit} ({' to '.join(bounds) or f'interval {NOT_MEASURED}'})"


def _score_text(rate: Rate) -> str:
    return NOT_MEASURED if rate.mean_score is None else f"{rate.mean_score:.3f}"
