"""Which pairs a step sees: endless shuffled epochs, and one bucket of equal picture sizes at a time.

Everything is a function of (seed, step) alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .models.noise import named_generator


def bucket_of(step: int, *, seed: int, batch_size: int, sizes: Sequence[int]) -> tuple[int, int]:
    """Choose the bucket of a step, every pair of every bucket being seen equally often in the long run.

    An epoch is as many batches of each bucket as its pairs have filled by then, in shuffled order, so a
    bucket that is smaller than a batch has its turn in some epochs only.

    Args:
        step: number of the step, from 0.
        seed: of the run.
        batch_size: pairs per step.
        sizes: pairs in each bucket, each >= 1.

    Returns:
        The number of the bucket, and how many steps before this one saw it.
    """
    if len(sizes) == 1:
        return 0, step

    def seen(epoch: int) -> list[int]:  # batches of each bucket before an epoch
        return [epoch * size // batch_size for size in sizes]

    epoch = step * batch_size // sum(sizes)  # at most the right one, as the batches are rounded down
    while sum(seen(epoch + 1)) <= step:
        epoch += 1
    before, after = seen(epoch), seen(epoch + 1)
    turns = [bucket for bucket in range(len(sizes)) for _ in range(before[bucket], after[bucket])]
    order = torch.randperm(len(turns), generator=named_generator(f"{seed}/bucket order/{epoch}"))
    so_far = [turns[place] for place in order[: step - sum(before) + 1].tolist()]
    bucket = so_far.pop()
    return bucket, before[bucket] + so_far.count(bucket)


def shuffled(items: Tensor, *, seed: int, name: str, start: int, count: int) -> Tensor:
    """Read positions start .. start + count of the endless row of shuffled epochs of some items.

    Args:
        items: (items,), at least one.
        seed: of the run.
        name: of the row; each name has its own order.
        start: first position, from 0.
        count: how many, >= 1.
    """
    places = [divmod(position, len(items)) for position in range(start, start + count)]
    orders = {
        epoch: torch.randperm(len(items), generator=named_generator(f"{seed}/{name}/{epoch}"))
        for epoch in dict.fromkeys(epoch for epoch, _ in places)
    }
    return items[torch.stack([orders[epoch][place] for epoch, place in places])]
