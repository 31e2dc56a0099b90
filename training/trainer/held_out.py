"""Which pairs are held out of training, so that the expert can be measured on pairs it has not seen."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..models.noise import named_generator
from ..pairs.training_data import Bucket, TrainingData
from .pair_weighting import trusted

MOST = 32  # pairs; more of them cost more time than their figures gain


def held_out(
    data: TrainingData, share: float, *, seed: int, trusted_only: bool = False, needed: bool = False
) -> tuple[TrainingData, tuple[Bucket, ...]]:
    """Split the pairs into those to train on and those to measure.

    Where the safe image of a held-out pair stands in for a neutral image, it is removed there too.

    Args:
        data: all pairs.
        share: of the pairs that may be held out, in [0, 1], rounded to whole pairs. At most `MOST` are held
            out, and at least one is left to train on.
        seed: of the run; it decides which pairs are held out.
        trusted_only: hold out only pairs that are `trusted`.
        needed: whether the run depends on held-out pairs.

    Returns:
        The data to train on, and the buckets of the held-out pairs. Pair numbers and tables are the same for
        both.

    Raises:
        ValueError: if they are needed, and the pairs are too few.
    """
    candidates = torch.cat([bucket.pairs for bucket in data.buckets])
    if trusted_only and data.safety_gap is not None:
        candidates = candidates[trusted(data)[candidates]]
    count = min(MOST, round(share * len(candidates)), len(candidates) - 1)
    if count < 1:
        if needed:
            raise ValueError(
                f"patience needs held-out pairs to watch, and validation {share:g} holds out none of the "
                f"{len(candidates)} of {data.num_pairs} pairs that may be. Use more pairs, raise validation, "
                "or set patience to 0."
            )
        return data, ()
    order = torch.randperm(len(candidates), generator=named_generator(f"{seed}/held out"))
    held_pairs = candidates[order[:count]]
    trained = [_without(bucket, held_pairs, data) for bucket in data.buckets]
    measured = [
        bucket._replace(pairs=bucket.pairs[torch.isin(bucket.pairs, held_pairs)]) for bucket in data.buckets
    ]
    return replace(data, buckets=_not_empty(trained)), _not_empty(measured)


def _without(bucket: Bucket, held_pairs: torch.Tensor, data: TrainingData) -> Bucket:
    pairs, neutral = bucket.pairs[~torch.isin(bucket.pairs, held_pairs)], bucket.neutral
    if data.neutral_pair is not None:
        neutral = neutral[~torch.isin(data.neutral_pair[neutral], held_pairs)]
    return bucket._replace(pairs=pairs, neutral=neutral)


def _not_empty(buckets: list[Bucket]) -> tuple[Bucket, ...]:
    return tuple(bucket for bucket in buckets if len(bucket.pairs))
