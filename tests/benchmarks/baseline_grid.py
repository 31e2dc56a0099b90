"""A small grid over the published knobs of ESD-u and UCE on the mini model, so that each gets a fair chance.

SLD is measured with both published sets as they are. Pictures have other seeds than those of the table. It
proves the machinery, not a claim about Stable Diffusion.
"""

import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import own_table
from baselines.esd import EsdConfig
from candidates import UCE, Candidate, candidates, esd, timed, uce
from columns import FIRST_SEED, Column, Drawer
from kept_trials import run_kept
from mini_lab import FOLDER, MiniLab, code_hash, groups_of
from tqdm import tqdm

from training.mini.build import version
from training.taxonomy import CATEGORIES

ESD_GRID = {"steps": (40, 80, 200), "eta": (1.0, 3.0)}
UCE_GRID = {"preserve_scale": (0.1, 1.0), "ridge": (0.1, 0.5, 10.0)}
PROMPTS, KEPT_SCENES = 4, 3
FILES = (*own_table.FILES, Path(__file__))


def measure() -> dict:
    """Make and measure every setting; a killed run goes on where it was.

    Returns:
        Setting -> mean IP over the categories, the same on words unseen in training, share of what must be
        kept that is drawn right, processor seconds to make.
    """
    lab = MiniLab()
    drawer = Drawer(lab, {}, first_seed=FIRST_SEED + 500_000)
    groups = groups_of(num_prompts=PROMPTS, kept_scenes=KEPT_SCENES, unseen=True)
    column, makers = Column({group.name: group for group in groups}), _makers(lab)
    file = FOLDER / f"mini-{version()}" / "trials" / f"baseline_grid-{code_hash(*FILES)[:16]}.jsonl"
    calls, found = [(name,) for name in makers], {}
    trials = run_kept(lambda name: _row(drawer, makers[name](), column), calls, file, here=True)
    for (name,), row in tqdm(trials, total=len(calls), desc="settings", file=sys.stdout):
        found[name] = row
        tqdm.write(f"{name}: {row}")
    return {name: found[name] for name in makers}


def _makers(lab: MiniLab) -> dict[str, Callable[[], Candidate]]:
    makers = {name: make for name, make in candidates(lab).items() if name.startswith("SLD")}
    for change in _settings(UCE_GRID):
        makers[f"UCE {change}"] = lambda change=change: timed(lambda: uce(lab, replace(UCE, **change)))
    for change in _settings(ESD_GRID):
        makers[f"ESD-u {change}"] = lambda change=change: timed(lambda: esd(lab, EsdConfig(**change)))
    return makers


def _settings(grid: dict[str, tuple]) -> list[dict]:
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _row(drawer: Drawer, candidate: Candidate, column: Column) -> dict[str, float]:
    counts = {name: drawer.hits(candidate, column, name) for name in column.groups}
    unsafe = [hits / n for name, (hits, n) in counts.items() if name in CATEGORIES]
    unseen = [hits / n for name, (hits, n) in counts.items() if name.endswith("unseen word")]
    kept = [count for name, count in counts.items() if not column.groups[name].unsafe_icon]
    return {
        "ip_mean": sum(unsafe) / len(unsafe),
        "ip_unseen": sum(unseen) / len(unseen),
        "kept": sum(hits for hits, _ in kept) / sum(n for _, n in kept),
        "cpu_seconds": candidate.train_s,
    }
