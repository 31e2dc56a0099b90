"""Candidates for the objective, compared on the mini model outside the server.

Plain Diffusion-DPO reaches a low loss long before the picture changes. Each candidate addresses this by one
change; all train the same experts with the same recipe. The published objectives train as published, by their
presets. The figures show that the parts work together; they say nothing about Stable Diffusion.
"""

from collections.abc import Sequence
from dataclasses import replace
from unittest import mock

import torch.nn.functional as F
from torch import Tensor

from efficacy import measured, spread, trial
from mini_lab import RECIPE
from training.config import TrainConfig, preset_values
from training.losses import LOSSES
from training.losses.alignguard import alignguard_loss
from training.losses.errors import PairErrors

CATEGORIES = ("violence", "illegal activity")  # an easy category and the hardest one
PUBLISHED = {"alignguard": "paper SD 1.5", "duo": "DUO SD 1.4"}  # objective -> preset of its recipe
# What the mini model changes in a preset: it trains on the CPU, and its pairs are encoded once, unmirrored. A
# quarter of the paper's batch keeps 2000 steps in minutes; the 48 pairs of an expert are still seen 83 times
# under both prompts, where the paper sees the rows of one category 4 to 17 times.
ON_THE_MINI = {"precision": "fp32", "flip": 0.0, "grad_accumulation": 1}
PENALTY = 5.0  # weight of DPO-Positive's penalty; our choice, because its paper names no value for pictures


def dpo_positive_loss(errors: PairErrors, *, beta: float) -> Tensor:
    """Penalise a winner that the policy makes worse than the base model does, inside the sigmoid.

    loss = -log sigmoid(-beta / 2 * [(e_w - e_l) - (ref_e_w - ref_e_l) + penalty * max(0, e_w - ref_e_w)])

    DPO-Positive (arXiv:2402.13228) with log likelihoods read as negative errors, as Diffusion-DPO does.
    """
    policy, reference = errors.winner - errors.loser, errors.ref_winner - errors.ref_loser
    worse = (errors.winner - errors.ref_winner).clamp(min=0)
    return -F.logsigmoid(-beta / 2 * (policy - reference + PENALTY * worse))


def parted_loss(errors: PairErrors, *, beta: float) -> Tensor:
    """Weight each pair by the gap between the base model's errors for winner and loser.

    The gap is taken at the timestep and noise of the pair. The weights have mean 1 over the batch.
    """
    gap = (errors.ref_winner - errors.ref_loser).abs()
    return gap / gap.mean() * alignguard_loss(errors, beta=beta)


ANCHORED = LOSSES["anchored"]
CANDIDATES = {  # all have the measured beta of `anchored`, so that only the named change differs
    "measured beta": replace(ANCHORED, terms={}),
    "measured beta, DPO-Positive": replace(ANCHORED, loss=dpo_positive_loss, terms={}),
    "preservation": replace(ANCHORED, terms={"preservation": ANCHORED.terms["preservation"]}),
    "preservation, DPO-Positive": replace(
        ANCHORED, loss=dpo_positive_loss, terms={"preservation": ANCHORED.terms["preservation"]}
    ),
    "anchored, weighed where the two part": replace(ANCHORED, loss=parted_loss),
}


def measure() -> dict:
    """Train with every objective and candidate on two categories, three seeds.

    Returns:
        Category and objective -> the figures of `efficacy.measure`.
    """
    rows = {
        f"{category}: {name}": ((category,), recipe_of(name))
        for category in CATEGORIES
        for name in (*LOSSES, *CANDIDATES)
    }
    return {row: spread(by_seed) for row, by_seed in measured(rows, candidate_trial).items()}


def recipe_of(name: str) -> TrainConfig:
    """Return how an objective or candidate is trained: by its published preset, else by `RECIPE`.

    The presets keep their learning rate, schedule, rank, targets and number of steps; `ON_THE_MINI` says what
    differs.
    """
    if name in PUBLISHED:
        return TrainConfig(**{**preset_values(PUBLISHED[name]), **ON_THE_MINI})
    return replace(RECIPE, objective=name)


def candidate_trial(name: str, categories: Sequence[str], config: TrainConfig, seed: int) -> dict[str, float]:
    """Train and measure one expert as `efficacy.trial` does, with the candidates registered as objectives."""
    with mock.patch.dict(LOSSES, CANDIDATES):
        return trial(name, categories, config, seed)
