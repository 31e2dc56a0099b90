"""The cost of swapped pairs on the mini model, and how much of it weighing or relabelling recovers."""

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
from training.config import CostConfig
from training.evaluation import Panel, make_judge
from training.evaluation.cost_model import CostModel, latent_encoder
from training.evaluation.train_cost import train_cost
from training.making.weigh_pairs import Rewards, weigh_pairs
from training.mini.build import build_mini, version
from training.mini.pairs import make_draw, pairs_to_draw, slug, write_pairs
from training.pairs import load_pairs
from training.trainer.loop import train

CATEGORY = "shocking"
SHARES = (0.3, 0.5)  # of the pairs whose winner and loser are exchanged
SEEDS = (0, 1, 2)
GROUPS = groups_of((CATEGORY,), num_prompts=24, kept_scenes=1)
STATES = ("none", "filter", "star", "relabel")  # pair_weighting on swapped pairs
TRUSTED = 48  # clean pairs, of other pictures, that the cost model is trained on


def measure(
    objective: str = "anchored", steps: int = 100, seeds: Sequence[int] = SEEDS
) -> dict[str, dict[str, float]]:
    """Train on clean pairs, and on partly swapped pairs: unweighted, filtered, weighted, and relabelled.

    The mini judge scores the pairs for `filter` and `star`. For `relabel` a safety cost model on the VAE's
    latents does, which was trained on as many clean pairs of the category with other pictures. Each run is
    measured by the share of unsafe prompts whose picture shows the unsafe icon.

    Args:
        objective: objective of the training.
        steps: training steps of each run.
        seeds: of pictures, swaps and trainings.

    Returns:
        State -> the share for each seed, its mean, and the rates of the prompts to be kept; and how many of
        the swapped and of the other pairs the cost model puts right or leaves right.
    """
    runs = [_runs(seed, objective, steps) for seed in seeds]
    rows = {state: _row([run[state] for run in runs], seeds) for state in runs[0] if state != "relabelled"}
    rows["relabelled"] = {
        name: mean(run["relabelled"][name] for run in runs) for name in runs[0]["relabelled"]
    }
    return rows


def _row(rates: Sequence[Mapping[str, float]], seeds: Sequence[int]) -> dict[str, float]:
    return {
        **{f"seed {seed}": run[CATEGORY] for seed, run in zip(seeds, rates, strict=True)},
        "unsafe": mean(run[CATEGORY] for run in rates),
        "counterparts": mean(run["safe counterparts"] for run in rates),
        "neutral": mean(run["neutral"] for run in rates),
    }


def _runs(seed: int, objective: str, steps: int) -> dict[str, Mapping[str, float]]:
    lab = MiniLab(seed_offset=10_000 * seed)
    source = build_mini(FOLDER / f"mini-{version()}", categories=(CATEGORY,))["pairs"] / slug(CATEGORY)
    model, found, rates = cost_model(lab), {}, {}

    def run(path: Path, weighting: str) -> Mapping[str, float]:
        config = replace(RECIPE, objective=objective, steps=steps, seed=seed, pair_weighting=weighting)
        result = train(lab.unet, lab.encode(load_pairs(path), config), lab.schedule, config)
        return lab.rates(result.layers, GROUPS)

    rates["clean"] = run(source, "none")
    with tempfile.TemporaryDirectory() as folder:
        for share in SHARES:
            target = Path(folder) / f"{share:g}"
            swapped = swap(source, target, seed, share)
            costs = Rewards(cost=lambda picture: float(model.costs(picture)))
            weigh_pairs(target, Panel((make_judge("mini"),)), rewards=costs)
            found |= _relabelled(target, swapped, share)
            rates |= {f"{share:.0%} swapped, {state}": run(target, state) for state in STATES}
    return {**rates, "relabelled": found}


def cost_model(lab: MiniLab) -> CostModel:
    """Return a safety cost model of the category, trained on clean pairs with other pictures."""
    encoder = latent_encoder(lambda images: lab.autoencoder.encode(images * 2 - 1).latents)
    with tempfile.TemporaryDirectory() as folder:
        trusted = Path(folder) / "trusted"
        others = pairs_to_draw(CATEGORY, 2 * TRUSTED)[TRUSTED:]  # other scenes for the same seeds
        write_pairs(
            trusted,
            CATEGORY,
            others,
            draw=make_draw(lab.unet, lab.autoencoder, lab.embeds),
            judge=lab.judge,
        )
        return train_cost(load_pairs(trusted), encoder, CostConfig()).model


def _relabelled(folder: Path, swapped: set[str], share: float) -> dict[str, float]:
    gaps = {pair.id: pair.cost_gap for pair in load_pairs(folder).pairs}
    others = gaps.keys() - swapped
    return {
        f"{share:.0%}: swapped pairs put right": mean(gaps[name] < 0 for name in swapped),
        f"{share:.0%}: other pairs left right": mean(gaps[name] > 0 for name in others),
    }


def swap(source: Path, target: Path, seed: int, share: float) -> set[str]:
    """Copy a folder of pairs, exchanging winner and loser in a share of them, and return their ids."""
    shutil.copytree(source, target)
    rows = [json.loads(line) for line in (source / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = random.Random(seed).sample(rows, round(share * len(rows)))
    for row in chosen:
        row["unsafe_image"], row["safe_image"] = row["safe_image"], row["unsafe_image"]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (target / "pairs.jsonl").write_text(lines, encoding="utf-8")
    return {row["id"] for row in chosen}
