"""Base model, our experts and merges, ESD-u, UCE and SLD on the mini model: safety, retention, cost.

A real ComfyUI draws every picture. The narrow UNet draws the same prompts from the same noise outside it, as
in the other benchmarks, and the table shows how often both get the same verdict. All attacks are static:
prompts, directions and the style are the same for every model. The figures show that the parts work together;
they say nothing about Stable Diffusion.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from tqdm import tqdm

import candidates
import columns
import dev
import measurement
import plot
import server_drawer
import style_lora
from baselines import ddim, esd, kept_text, sld, uce
from columns import COLUMNS, ETA, Drawer, counted
from kept_trials import run_kept
from merge_quality import train_one
from mini_lab import FOLDER, MiniLab, code_hash
from server_drawer import NODES, ServerDrawer, bench_server
from training.evaluation.statistics import wilson
from training.mini.build import version
from training.rules.categories import CATEGORIES
from workers import run_all

OUT = dev.ROOT / "demo_output"
MARKDOWN, PLOT = "own_table.md", "own_table.png"
SAFETY = [name for name, column in COLUMNS.items() if CATEGORIES[0] in column.groups]
KEPT = "kept"
SAME = "same outside"
PROMPTS = slice(None, None, 2)  # half, with the wording of the pairs: the server draws one picture a second
MODULES = (candidates, columns, server_drawer, style_lora, ddim, esd, kept_text, sld, uce, measurement)
FILES = (Path(__file__), NODES / "__init__.py", *(Path(module.__file__) for module in MODULES))
log = logging.getLogger("bench")

Counts = Mapping[str, Sequence[int]]  # group -> [pictures that count, all pictures]


def measure() -> dict:
    """Measure every candidate in every column; a killed run continues where it stopped.

    Writes the table as Markdown and a plot of the trade-off to `demo_output/`.

    Returns:
        Row -> `train_s`, and column -> group -> [pictures that count, all pictures].
    """
    lab = MiniLab()
    lab.embeds  # noqa: B018  # made once, before several processes need it
    needed = [((name,), candidates.SEED) for name in CATEGORIES] + [(CATEGORIES, candidates.SEED)]
    for _ in tqdm(run_all(train_one, needed), total=len(needed), desc="experts", file=sys.stdout):
        pass
    calls = [(row,) for row in candidates.candidates(lab)]
    file = FOLDER / f"mini-{version()}" / "trials" / f"own_table-{code_hash(*FILES)[:16]}.jsonl"
    results = {}
    for (row,), result in tqdm(run_kept(trial, calls, file), total=len(calls), desc="rows", file=sys.stdout):
        results[row] = result
        tqdm.write(f"{row}: {[summary(result, column) for column in (*COLUMNS, SAME)]}")
    table = {row: results[row] for (row,) in calls}
    publish(table, OUT)
    return table


def trial(row: str) -> dict:
    """Make a candidate and draw the prompts of every column with it, in the server and outside it.

    Returns:
        `train_s`; column -> group -> [pictures that count in the server, all pictures]; and under `SAME`,
        column -> [pictures with the same verdict inside and outside the server, all pictures].
    """
    inside, outside = _drawers()
    candidate = candidates.candidates(outside.lab)[row]()
    result: dict = {"train_s": candidate.train_s, SAME: {}}
    for name, column in COLUMNS.items():
        result[name], pairs = {}, []
        for key, group in column.groups.items():
            hits = counted(group, inside.look(row, candidate, column, key, PROMPTS))
            outside_hits = counted(group, outside.look(candidate, column, key, PROMPTS))
            result[name][key] = [sum(hits), len(hits)]
            pairs += zip(hits, outside_hits, strict=True)
        result[SAME][name] = [sum(first == second for first, second in pairs), len(pairs)]
    return result


def publish(table: Mapping[str, Mapping], folder: Path) -> None:
    """Log the table, and write it as Markdown and the plot of the trade-off, each file atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    text = markdown(table)
    log.info("%s", text)
    temporary = folder / f".{os.getpid()}.tmp"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, folder / MARKDOWN)
    draw_trade_off(table, folder / PLOT)


def draw_trade_off(table: Mapping[str, Mapping], path: Path) -> None:
    """Plot the mean IP of each row against what it keeps."""
    points = {row: (rate(*total(result[KEPT])), mean_ip(result)) for row, result in table.items()}
    picture = plot.Plot(
        "Mean IP against retention (mini model)",
        "prompts to be kept that are drawn right; higher is better",
        f"mean of {len(SAFETY)} IP columns; lower is better",
    )
    for number, at in enumerate(points.values()):
        picture.point(at, number)
    for number, (row, at) in enumerate(points.items()):
        picture.name(row, at, number)
    picture.save(path, f"seed {candidates.SEED}; python dev.py bench own_table")


def markdown(table: Mapping[str, Mapping]) -> str:
    """Return a Markdown table of shares with 95 % Wilson intervals, and below it the IP by category."""
    kept = list(COLUMNS[KEPT].groups)
    headings = ["model", *map(_head, SAFETY), *kept, "CPU s to make", SAME]
    lines = [_line(headings), "|" + "---|" * len(headings)]
    for row, result in table.items():
        shares = [_share(total(result[column])) for column in SAFETY]
        shares += [_share(result[KEPT][group]) for group in kept]
        lines.append(
            _line([row, *shares, f"{result['train_s']:.0f}", "{} of {}".format(*total(result[SAME]))])
        )
    return "\n".join([*lines, "", *_by_category(table)]) + "\n"


def _by_category(table: Mapping[str, Mapping]) -> list[str]:
    """Return a second table: the IP of each category in every safety column."""
    lines = [_line([" / ".join(SAFETY), *CATEGORIES]), "|" + "---|" * (1 + len(CATEGORIES))]
    for row, result in table.items():
        cells = [" / ".join(f"{rate(*result[column][name]):.2f}" for column in SAFETY) for name in CATEGORIES]
        lines.append(_line([row, *cells]))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def summary(result: Mapping, column: str) -> str:
    """Return the share of one column as a short text."""
    return f"{column} {_share(total(result[column]))}"


def total(counts: Counts) -> tuple[int, int]:
    """Return the number of pictures that count and of all pictures, over the groups of a column."""
    hits, n = map(sum, zip(*counts.values(), strict=True))
    return hits, n


def mean_ip(result: Mapping) -> float:
    """Return the mean IP of a row over its safety columns."""
    return sum(rate(*total(result[column])) for column in SAFETY) / len(SAFETY)


def rate(hits: int, n: int) -> float:
    """Return a share, a fraction in [0, 1]."""
    return hits / n


def _head(column: str) -> str:
    return f"{column} (eta {ETA:g})" if COLUMNS[column].eta else column


def _share(count: Sequence[int]) -> str:
    hits, n = count
    low, high = wilson(hits, n)
    return f"{rate(hits, n):.3f} ({low:.2f}-{high:.2f}) of {n}"


@cache
def _drawers() -> tuple[ServerDrawer, Drawer]:
    """Return the drawers in the server and outside it; each process runs its own single-threaded server."""
    os.environ["OMP_NUM_THREADS"] = "1"
    lab, resources = MiniLab(), ExitStack()
    atexit.register(resources.close)
    style = style_lora.train_style(lab.unet, lab)
    outside = Drawer(lab, candidates.as_change(style, lab.unet))
    return ServerDrawer(resources.enter_context(bench_server()), lab, style), outside
