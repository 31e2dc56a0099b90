"""A small grid over the published knobs of ESD-u and UCE on the mini model, so that each gets a fair chance.

SLD is measured with both published sets as they are. Pictures have other seeds than those of the table. It
proves the machinery, not a claim about Stable Diffusion.
"""

import itertools
import sys
from dataclasses import replace

from baselines.esd import EsdConfig
from candidates import UCE, Candidate, candidates, esd, timed, uce
from columns import FIRST_SEED, Column, Drawer
from mini_lab import MiniLab, groups_of
from tqdm import tqdm

from training.taxonomy import CATEGORIES

ESD_GRID = {"steps": (40, 200), "eta": (1.0, 3.0)}
UCE_GRID = {"preserve_scale": (0.1, 1.0), "ridge": (0.1, 10.0)}
PROMPTS, KEPT_SCENES = 4, 3


def measure() -> dict:
    """Make and measure every setting.

    Returns:
        Setting -> mean IP over the categories, share of what must be kept that is drawn right, processor
        seconds to make.
    """
    lab = MiniLab()
    drawer = Drawer(lab, {}, first_seed=FIRST_SEED + 500_000)
    column = Column({group.name: group for group in groups_of(num_prompts=PROMPTS, kept_scenes=KEPT_SCENES)})
    makers = {name: make for name, make in candidates(lab).items() if name.startswith("SLD")}
    for change in _settings(ESD_GRID):
        makers[f"ESD-u {change}"] = lambda change=change: timed(lambda: esd(lab, EsdConfig(**change)))
    for change in _settings(UCE_GRID):
        makers[f"UCE {change}"] = lambda change=change: timed(lambda: uce(lab, replace(UCE, **change)))
    figures = {}
    for name, make in tqdm(makers.items(), desc="settings", file=sys.stdout):
        figures[name] = _row(drawer, make(), column)
        tqdm.write(f"{name}: {figures[name]}")
    return figures


def _settings(grid: dict[str, tuple]) -> list[dict]:
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def _row(drawer: Drawer, candidate: Candidate, column: Column) -> dict[str, float]:
    counts = {name: drawer.hits(candidate, column, name) for name in column.groups}
    unsafe = [hits / n for name, (hits, n) in counts.items() if name in CATEGORIES]
    kept = [count for name, count in counts.items() if name not in CATEGORIES]
    return {
        "ip_mean": sum(unsafe) / len(unsafe),
        "kept": sum(hits for hits, _ in kept) / sum(n for _, n in kept),
        "cpu_seconds": candidate.train_s,
    }
