"""What training keeps where nobody wrote neutral pictures: everyday prompts on the pictures of the pairs.

An expert must change what the unsafe prompts draw, and nothing else. It acts most on noised pictures like
those of its pairs. So everyday prompts are put on just these, safe and unsafe alike: nothing has to be drawn,
and what is learned must depend on the prompt. Pictures of a user (`neutral.jsonl`) count first: they are at
least half of what is kept.

Our choice. On the large mini world (one category, one seed), 89 % of the neutral concepts that no run saw
were still drawn right with the default options, against 77 % where the safe pictures of the pairs were kept.
Pictures that the base model drew for as many everyday prompts kept less than this (50 % against 59 %, a short
recipe, a base model not trained to its end).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import TrainConfig
from ..losses import LOSSES, objective_named
from ..models.conditioning import Conditioning
from ..models.noise import Schedule, named_generator
from ..pairs.everyday import Everyday, everyday
from ..pairs.training_data import Bucket, TrainingData

# Kept prompts are shown about this often, so a short run encodes few of them and a long one all. More prompts
# keep more of what no run saw: 99 % with 642, 94 % with 128 (as above, 300 steps).
SHOWN = 8
FEWEST, ENDLESS, NUM_MEASURED = 16, 64, 12  # everyday prompts; as many sentences of the pairs are added


def everyday_of(config: TrainConfig) -> Everyday:
    """Return the everyday prompts that a run with these options, resolved or not, needs encoded.

    Raises:
        ValueError: if the objective is unknown.
    """
    weight = objective_named(config.objective).terms.get("preservation")  # None: there is no such term
    if weight is not None and config.preserve_weight >= 0:
        weight = config.preserve_weight
    if not weight:
        return everyday(0, NUM_MEASURED)
    if config.lr_schedule == "constant":  # such a run may be prolonged, and must then keep the same prompts
        return everyday(ENDLESS, NUM_MEASURED)
    num_pairs = config.steps * config.batch_size * config.grad_accumulation
    return everyday(max(FEWEST, num_pairs // SHOWN), NUM_MEASURED)


def with_everyday(data: TrainingData) -> TrainingData:
    """Return the data with its everyday prompts among what every bucket keeps.

    Safe pictures that stand in for neutral ones are not needed any more and are left out.
    """
    count = len(data.everyday_prompt)
    if not count:
        return data
    numbers = torch.arange(data.num_neutral, data.num_neutral + count)
    return replace(data, buckets=tuple(_with_rows(bucket, numbers, data) for bucket in data.buckets))


def _with_rows(bucket: Bucket, numbers: Tensor, data: TrainingData) -> Bucket:
    """Add rows to what a bucket keeps, after a user's own, which are repeated until they are half of all."""
    own = bucket.neutral[_is_own(data)[bucket.neutral]]
    repeats = math.ceil(len(numbers) / len(own)) if len(own) else 0
    return bucket._replace(neutral=torch.cat([own.repeat(repeats), numbers]))


def _is_own(data: TrainingData) -> Tensor:
    """Return whether each neutral row is a user's, and not a safe picture that stands in, (rows,) bool."""
    if data.neutral_pair is None:
        return torch.ones(data.num_neutral, dtype=torch.bool)
    return data.neutral_pair < 0


def kept_text(data: TrainingData, config: TrainConfig) -> str:
    """Return what a run keeps, for people.

    Args:
        data: of the run.
        config: resolved options.
    """
    if config.preserve_weight == 0:
        return "nothing"
    if LOSSES[config.objective].keeps_pure_noise:
        return "predictions from pure noise under the empty prompt"
    num_own, num_everyday = int(_is_own(data).sum()), len(data.everyday_prompt)
    parts = [f"{num_own} neutral pictures of the pairs folder"] if num_own else []
    parts += [f"{num_everyday} everyday prompts"] if num_everyday else []
    return " and ".join(parts) or "the safe pictures of the pairs"


class MeasuredRows(NamedTuple):
    """Noised pictures of pairs under everyday prompts that training never keeps, to measure its change.

    Attributes:
        noisy: (rows, 4, h, w) fp32.
        timesteps: spread over the schedule, (rows,) int64.
        captions: one row per picture.
    """

    noisy: Tensor
    timesteps: Tensor
    captions: Conditioning


def measured_rows(data: TrainingData, schedule: Schedule, seed: int) -> MeasuredRows | None:
    """Put the prompts that are only measured on pictures of the fullest bucket; None where there are none.

    Args:
        data: the pairs, those held out included.
        schedule: of the family.
        seed: of the run.
    """
    count = len(data.measured_prompt)
    if not count:
        return None
    bucket = max(data.buckets, key=lambda bucket: len(bucket.pairs))
    pairs = bucket.pairs[torch.arange(count) * len(bucket.pairs) // count]
    winners = torch.arange(count) % 2 == 0
    clean = torch.where(winners[:, None, None, None], data.winner[pairs], data.loser[pairs]).float().cpu()
    timesteps = torch.arange(count) * len(schedule) // count
    noise = torch.randn(clean.shape, generator=named_generator(f"{seed}/measured noise"))
    return MeasuredRows(
        schedule.add_noise(clean, noise, timesteps), timesteps, data.prompts[data.measured_prompt]
    )
