"""Which picture a training run sees at which size: pairs and neutral samples in their buckets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..models.conditioning import LATENT_STEP
from ..system.pictures import image_size
from .training_data import Bucket

if TYPE_CHECKING:
    from .pair import SafetyPairs


STEP = 64  # pixels between the sides of buckets, as kohya's sd-scripts, whose buckets these are
_TINY_STEP, _TINY = 8, 256  # below this resolution 64 would leave hardly a choice


def bucket_sizes(resolution: int) -> tuple[tuple[int, int], ...]:
    """Return the sizes of pictures to train on at a resolution, in both orientations.

    The square comes first. Then for each side from half to twice the resolution, in steps of 64 pixels (8
    below 256), the longest other side with which the area stays within resolution^2.

    Args:
        resolution: side of the largest square in pixels, a multiple of 8.

    Returns:
        (height, width) in pixels, each once.
    """
    step = STEP if resolution >= _TINY else _TINY_STEP
    square = resolution // step * step
    smallest, longest = math.ceil(resolution / 2 / step) * step, 2 * resolution // step * step
    sizes = {(square, square): None}
    for side in range(smallest, longest + 1, step):
        other = min(longest, resolution**2 // side // step * step)
        if other >= smallest:
            sizes |= {(side, other): None, (other, side): None}
    return tuple(sizes)


def nearest_size(sizes: Sequence[tuple[int, int]], size: tuple[int, int]) -> tuple[int, int]:
    """Return the bucket whose aspect ratio is nearest, so that least is cropped.

    The ratio of the ratios decides, where sd-scripts takes their difference: a picture turned by 90 degrees
    then has the turned bucket.

    Args:
        sizes: (height, width) to choose from; the first of equally near ones is taken.
        size: (height, width) of a picture, any unit.
    """
    ratio = math.log(size[0] / size[1])
    return min(sizes, key=lambda each: round(abs(math.log(each[0] / each[1]) - ratio), 9))


LATENT_CHANNELS = 4

Size = tuple[int, int]  # height and width in pixels


class Picture(NamedTuple):
    """An image file, as it is shown: resized and cropped to a size, perhaps mirrored."""

    file: Path
    size: Size
    mirrored: bool = False


@dataclass(frozen=True)
class Arrangement:
    """The rows of a run before they are encoded; see `TrainingData`, which has the same parts.

    Attributes:
        winner: safe pictures, one per pair.
        loser: unsafe pictures, of the size of their winners.
        neutral: neutral pictures, then the safe ones of the pairs that stand in for missing ones.
        neutral_prompts: one per neutral picture.
        neutral_pairs: number of the pair that each of them is the safe picture of, -1 for the neutral ones.
        buckets: every row is in one of them.
    """

    winner: tuple[Picture, ...]
    loser: tuple[Picture, ...]
    neutral: tuple[Picture, ...]
    neutral_prompts: tuple[str, ...]
    neutral_pairs: tuple[int, ...]
    buckets: tuple[Bucket, ...]

    def pictures(self, *, mirrored: bool) -> Iterator[Picture]:
        """Return each different picture once, where wanted followed by the same mirrored."""
        for picture in dict.fromkeys((*self.winner, *self.loser, *self.neutral)):
            yield picture
            if mirrored:
                yield picture._replace(mirrored=True)


def arrange(pairs: SafetyPairs, sizes: Sequence[Size]) -> Arrangement:
    """Put pairs and neutral samples into buckets.

    The winner decides for both pictures of its pair. A neutral picture goes where pairs are; in a bucket
    that gets none the safe side of its pairs stands in.

    Args:
        pairs: to train on; at least one.
        sizes: of the buckets; with a single one no file is opened.

    Raises:
        ValueError: if an image cannot be read.
    """
    of_pair = [_nearest(sizes, pair.winner) for pair in pairs.pairs]
    used = tuple(dict.fromkeys(of_pair))
    neutral = [(Picture(each.image, _nearest(used, each.image)), each.prompt) for each in pairs.neutral]
    bare = set(used) - {picture.size for picture, _ in neutral}
    stand_ins = [number for number, size in enumerate(of_pair) if size in bare]
    neutral_pairs = [-1] * len(neutral) + stand_ins
    neutral += [
        (Picture(pairs.pairs[number].winner, of_pair[number]), pairs.pairs[number].safe_prompt)
        for number in stand_ins
    ]
    of_neutral = [picture.size for picture, _ in neutral]
    return Arrangement(
        winner=tuple(Picture(pair.winner, size) for pair, size in zip(pairs.pairs, of_pair, strict=True)),
        loser=tuple(Picture(pair.loser, size) for pair, size in zip(pairs.pairs, of_pair, strict=True)),
        neutral=tuple(picture for picture, _ in neutral),
        neutral_prompts=tuple(prompt for _, prompt in neutral),
        neutral_pairs=tuple(neutral_pairs),
        buckets=tuple(
            Bucket(latent_shape(size), _places(of_pair, size), _places(of_neutral, size)) for size in used
        ),
    )


def latent_shape(size: Size) -> tuple[int, int, int]:
    """Return the shape of the latents of a picture, (4, h, w)."""
    return LATENT_CHANNELS, size[0] // LATENT_STEP, size[1] // LATENT_STEP


def _nearest(sizes: Sequence[Size], file: Path) -> Size:
    return nearest_size(sizes, image_size(file)) if len(sizes) > 1 else sizes[0]


def _places(sizes: Sequence[Size], size: Size) -> torch.Tensor:
    return torch.tensor([number for number, each in enumerate(sizes) if each == size])
