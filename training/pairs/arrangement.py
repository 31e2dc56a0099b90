"""Which picture a training run sees at which size: pairs and neutral samples sorted into buckets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..models.conditioning import LATENT_STEP
from ..system.pictures import image_facts
from .training_data import Bucket

if TYPE_CHECKING:
    from .pair import SafetyPairs

LATENT_CHANNELS = 4
STEP = 64  # pixels between the sides of buckets, as in kohya's sd-scripts, which invented these buckets
_SMALL = 256  # below this resolution steps of 64 would leave hardly a choice

Size = tuple[int, int]  # height and width in pixels


class Picture(NamedTuple):
    """An image file as the run sees it: resized and cropped to a size, perhaps mirrored."""

    file: Path
    size: Size
    mirrored: bool = False

    @property
    def form(self) -> str:
        """What is done to the file before it is encoded; part of the cache key."""
        return f"{self.size[0]}x{self.size[1]}{' mirrored' if self.mirrored else ''}"


@dataclass(frozen=True)
class Arrangement:
    """The rows of a run before they are encoded; `TrainingData` has the same parts.

    Attributes:
        winner: safe pictures, one per pair.
        loser: unsafe pictures, of the size of their winners.
        neutral: neutral pictures, then the safe pictures of pairs that replace missing ones.
        neutral_prompts: one per neutral picture.
        neutral_pairs: index of the pair that each neutral picture is the safe side of; -1 for others.
        buckets: every row is in one of them.
    """

    winner: tuple[Picture, ...]
    loser: tuple[Picture, ...]
    neutral: tuple[Picture, ...]
    neutral_prompts: tuple[str, ...]
    neutral_pairs: tuple[int, ...]
    buckets: tuple[Bucket, ...]

    def pictures(self) -> tuple[Picture, ...]:
        """Return each different picture once."""
        return tuple(dict.fromkeys((*self.winner, *self.loser, *self.neutral)))


def arrange(
    pairs: SafetyPairs, sizes: Sequence[Size], channels: int = LATENT_CHANNELS, step: int = LATENT_STEP
) -> Arrangement:
    """Sort pairs and neutral samples into buckets.

    The winner decides the bucket of its pair. A neutral picture goes to the nearest bucket that holds
    pairs. In a bucket that receives no neutral picture the safe side of its pairs is used instead.

    Args:
        pairs: to train on; at least one.
        sizes: of the buckets; with a single one no file is opened.
        channels: of the latents.
        step: pixels per latent.

    Raises:
        ValueError: if an image cannot be read.
    """
    pair_sizes = [_nearest(sizes, pair.winner) for pair in pairs.pairs]
    used = tuple(dict.fromkeys(pair_sizes))
    neutral = [
        (Picture(sample.image, _nearest(used, sample.image)), sample.prompt) for sample in pairs.neutral
    ]
    without_neutral = set(used) - {picture.size for picture, _ in neutral}
    stand_ins = [number for number, size in enumerate(pair_sizes) if size in without_neutral]
    neutral_pairs = [-1] * len(neutral) + stand_ins
    neutral += [
        (Picture(pairs.pairs[number].winner, pair_sizes[number]), pairs.pairs[number].safe_prompt)
        for number in stand_ins
    ]
    neutral_sizes = [picture.size for picture, _ in neutral]
    return Arrangement(
        winner=tuple(Picture(pair.winner, size) for pair, size in zip(pairs.pairs, pair_sizes, strict=True)),
        loser=tuple(Picture(pair.loser, size) for pair, size in zip(pairs.pairs, pair_sizes, strict=True)),
        neutral=tuple(picture for picture, _ in neutral),
        neutral_prompts=tuple(prompt for _, prompt in neutral),
        neutral_pairs=tuple(neutral_pairs),
        buckets=tuple(
            Bucket(
                latent_shape(size, channels, step),
                _positions(pair_sizes, size),
                _positions(neutral_sizes, size),
            )
            for size in used
        ),
    )


def bucket_sizes(resolution: int, small_step: int = LATENT_STEP) -> tuple[Size, ...]:
    """Return the picture sizes to train on at a resolution, in both orientations.

    The square comes first. Then for each side from half to twice the resolution, in steps of 64 pixels (fewer
    below 256), the longest other side that keeps the area within resolution^2.

    Args:
        resolution: side of the largest square in pixels, a multiple of `small_step`.
        small_step: steps below 256; pixels per latent.

    Returns:
        (height, width) in pixels, each once.
    """
    step = STEP if resolution >= _SMALL else small_step
    square = resolution // step * step
    smallest, longest = math.ceil(resolution / 2 / step) * step, 2 * resolution // step * step
    sizes = {(square, square): None}
    for side in range(smallest, longest + 1, step):
        other = min(longest, resolution**2 // side // step * step)
        if other >= smallest:
            sizes |= {(side, other): None, (other, side): None}
    return tuple(sizes)


def nearest_size(sizes: Sequence[Size], size: Size) -> Size:
    """Return the bucket with the nearest aspect ratio, so that as little as possible is cropped.

    Aspect ratios are compared by their quotient, where sd-scripts uses their difference: a picture rotated
    by 90 degrees then gets the rotated bucket.

    Args:
        sizes: (height, width) to choose from; of equally near ones the first is taken.
        size: (height, width) of a picture, in any unit.
    """
    log_ratio = math.log(size[0] / size[1])
    return min(sizes, key=lambda bucket: round(abs(math.log(bucket[0] / bucket[1]) - log_ratio), 9))


def latent_shape(
    size: Size, channels: int = LATENT_CHANNELS, step: int = LATENT_STEP
) -> tuple[int, int, int]:
    """Return the shape of the latents of a picture, (channels, h, w)."""
    return channels, size[0] // step, size[1] // step


def _nearest(sizes: Sequence[Size], file: Path) -> Size:
    return nearest_size(sizes, image_facts(file).size) if len(sizes) > 1 else sizes[0]


def _positions(sizes: Sequence[Size], size: Size) -> torch.Tensor:
    return torch.tensor([number for number, candidate in enumerate(sizes) if candidate == size])
