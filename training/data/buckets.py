"""Aspect-ratio buckets: picture sizes of about one area, so that pictures need little cropping."""

import math
from collections.abc import Sequence

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
