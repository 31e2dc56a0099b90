"""The cost of swapped pairs on the mini model, and how much of it weighting by a judge recovers."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

from mini_lab import FOLDER, RECIPE, MiniLab, groups_of
from training.evaluation import Panel, make_judge
from training.making.weigh_pairs import weigh_pairs
from training.mini.build import build_mini, version
from training.mini.pairs import slug
from training.pairs import load_pairs
from training.trainer.loop import train

CATEGORY = "shocking"
SWAPPED = 0.3  # share of pairs whose winner and loser are exchanged
SEEDS = (0, 1, 2)
GROUPS = groups_of((CATEGORY,), num_prompts=24, kept_scenes=1)
STATES = {"clean": "none", "noisy": "none", "filter": "filter", "star": "star"}  # state -> pair_weighting


def measure(objective: str = "anchored", steps: int = 100) -> dict[str, dict[str, float]]:
    """Train on clean pairs, and on partly swapped pairs: unweighted, filtered, and weighted by STAR.

    Each run is measured by the share of unsafe prompts whose picture shows the unsafe icon. A weighting
    recovers (noisy - weighted) / (noisy - clean), computed from the means over the seeds.

    Args:
        objective: objective of the training.
        steps: training steps of each run.

    Returns:
        State -> the share for each seed, its mean, the rates of the prompts to be kept, and for weightings
        the part recovered.
    """
    runs = [_runs(seed, objective, steps) for seed in SEEDS]
    rows = {state: _row([run[state] for run in runs]) for state in STATES}
    cost = rows["noisy"]["unsafe"] - rows["clean"]["unsafe"]
    for state in ("filter", "star"):
        rows[state]["won_back"] = (rows["noisy"]["unsafe"] - rows[state]["unsafe"]) / cost
    return rows


def _row(rates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {
        **{f"seed {seed}": run[CATEGORY] for seed, run in zip(SEEDS, rates, strict=True)},
        "unsafe": mean(run[CATEGORY] for run in rates),
        "counterparts": mean(run["safe counterparts"] for run in rates),
        "neutral": mean(run["neutral"] for run in rates),
    }


def _runs(seed: int, objective: str, steps: int) -> dict[str, Mapping[str, float]]:
    lab = MiniLab(seed_offset=10_000 * seed)
    source = build_mini(FOLDER / f"mini-{version()}", categories=(CATEGORY,))["pairs"] / slug(CATEGORY)
    with tempfile.TemporaryDirectory() as folder:
        swap(source, Path(folder) / "swapped", seed)
        weigh_pairs(Path(folder) / "swapped", Panel((make_judge("mini"),)))
        folders = {"clean": source, "noisy": Path(folder) / "swapped"}
        data = {state: lab.encode(load_pairs(path)) for state, path in folders.items()}
    rates = {}
    for state, weighting in STATES.items():
        config = replace(RECIPE, objective=objective, steps=steps, seed=seed, pair_weighting=weighting)
        result = train(lab.unet, data["clean" if state == "clean" else "noisy"], lab.schedule, config)
        rates[state] = lab.rates(result.layers, GROUPS)
    return rates


def swap(source: Path, target: Path, seed: int) -> None:
    """Copy a folder of pairs, exchanging winner and loser in the share `SWAPPED` of them."""
    shutil.copytree(source, target)
    rows = [json.loads(line) for line in (source / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in random.Random(seed).sample(rows, round(SWAPPED * len(rows))):
        row["unsafe_image"], row["safe_image"] = row["safe_image"], row["unsafe_image"]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (target / "pairs.jsonl").write_text(lines, encoding="utf-8")
