"""Pairs that are measured and never trained on."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..models.noise import named_generator
from ..pairs.training_data import Bucket, TrainingData
from .pair_weighting import trusted

MOST = 32  # pairs; more cost more time than their figures gain


def held_out(
    data: TrainingData, share: float, *, seed: int, trusted_only: bool = False
) -> tuple[TrainingData, tuple[Bucket, ...]]:
    """Part the pairs into those to train on and those to measure.

    A held-out pair is also missing where its safe image would have stood in for a neutral one.

    Args:
        data: what was encoded.
        share: of the pairs that may be held out, in [0, 1], 0 for none; at least one and at most `MOST`
            are, and one is always left to train on.
        seed: of the run; it decides which.
        trusted_only: hold out only pairs that are `trusted`.

    Returns:
        The data to train on, and the buckets of the held-out pairs; tables and numbers of the pairs are the
        same for both.

    Raises:
        ValueError: if there are not two pairs that may be held out: one of them is trained on.
    """
    if share == 0:
        return data, ()
    numbers = torch.cat([bucket.pairs for bucket in data.buckets])
    if trusted_only and data.safety_gap is not None:
        numbers = numbers[trusted(data)[numbers]]
    count = min(MOST, max(1, round(share * len(numbers))), len(numbers) - 1)
    if count < 1:
        raise ValueError(
            f"validation needs a pair to hold out and one to train on, got {len(numbers)} that can be held "
            f"out of {data.num_pairs}. Use more pairs, or set validation to 0."
        )
    order = torch.randperm(len(numbers), generator=named_generator(f"{seed}/held out"))
    held = numbers[order[:count]]
    trained = [_without(bucket, held, data) for bucket in data.buckets]
    measured = [
        bucket._replace(pairs=bucket.pairs[torch.isin(bucket.pairs, held)]) for bucket in data.buckets
    ]
    return replace(data, buckets=_not_empty(trained)), _not_empty(measured)


def _without(bucket: Bucket, held: torch.Tensor, data: TrainingData) -> Bucket:
    pairs, neutral = bucket.pairs[~torch.isin(bucket.pairs, held)], bucket.neutral
    if data.neutral_pair is not None:
        neutral = neutral[~torch.isin(data.neutral_pair[neutral], held)]
    return bucket._replace(pairs=pairs, neutral=neutral)


def _not_empty(buckets: list[Bucket]) -> tuple[Bucket, ...]:
    return tuple(bucket for bucket in buckets if len(bucket.pairs))
