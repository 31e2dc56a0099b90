"""A small grid over the published parameters of ESD-u and UCE on the mini model, to tune both fairly.

The table itself measures SLD with both of its published settings. The pictures of the grid use other seeds
than those of the table. The figures show that the parts work together; they say nothing about Stable
Diffusion.
"""

import itertools
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

from tqdm import tqdm

import own_table
from baselines.esd import EsdConfig
from baselines.uce import UceConfig
from candidates import UCE, Candidate, esd, timed, uce
from columns import FIRST_SEED, Column, Drawer
from kept_trials import run_kept
from mini_lab import FOLDER, MiniLab, code_hash, groups_of
from training.mini.build import version
from training.rules.categories import CATEGORIES

ETAS, STEPS = (1.0, 3.0), (40, 200)
PRESERVE_SCALES, RIDGES = (0.1, 1.0), (0.1, 10.0)  # the ends; UCE has the same rates at both and between
PROMPTS, KEPT_SCENES = 2, 2
FILES = (*own_table.FILES, Path(__file__))


def measure() -> dict:
    """Make and measure every setting; a killed run continues where it stopped.

    Returns:
        Setting -> mean IP over the categories, the same for words unseen in training, share of the prompts to
        be kept that are drawn right, and processor seconds to make the model.
    """
    calls = [("ESD-u", eta, steps) for steps in STEPS for eta in ETAS]
    calls += [("UCE", *knobs) for knobs in itertools.product(PRESERVE_SCALES, RIDGES)]
    file = FOLDER / f"mini-{version()}" / "trials" / f"baseline_grid-{code_hash(*FILES)[:16]}.jsonl"
    rows = {}
    for call, row in tqdm(run_kept(trial, calls, file, here=True), total=len(calls), file=sys.stdout):
        rows[call] = row
        tqdm.write(f"{config_of(*call)}: {row}")
    return {f"{config_of(*call)}": rows[call] for call in calls}


def config_of(method: str, *knobs: float) -> EsdConfig | UceConfig:
    """Return a setting of a method: eta and steps of ESD-u, or preserve scale and ridge of UCE."""
    if method == "UCE":
        return replace(UCE, preserve_scale=knobs[0], ridge=knobs[1])
    return EsdConfig(eta=knobs[0], steps=knobs[1])


def trial(method: str, *knobs: float) -> dict[str, float]:
    """Make and measure one setting; the arguments are those of `config_of`."""
    make, lab, config = {"UCE": uce, "ESD-u": esd}[method], _drawer().lab, config_of(method, *knobs)
    return _row(timed(lambda: make(lab, config)))


def _row(candidate: Candidate) -> dict[str, float]:
    column = _column()
    counts = {name: _drawer().hits(candidate, column, name) for name in column.groups}
    unsafe = [hits / n for name, (hits, n) in counts.items() if name in CATEGORIES]
    unseen = [hits / n for name, (hits, n) in counts.items() if name.endswith("unseen word")]
    kept = [count for name, count in counts.items() if not column.groups[name].unsafe_icon]
    return {
        "ip_mean": sum(unsafe) / len(unsafe),
        "ip_unseen": sum(unseen) / len(unseen),
        "kept": sum(hits for hits, _ in kept) / sum(n for _, n in kept),
        "cpu_seconds": candidate.train_s,
    }


@cache
def _drawer() -> Drawer:
    return Drawer(MiniLab(), {}, first_seed=FIRST_SEED + 500_000)


@cache
def _column() -> Column:
    groups = groups_of(num_prompts=PROMPTS, kept_scenes=KEPT_SCENES, unseen=True)
    return Column({group.name: group for group in groups})
