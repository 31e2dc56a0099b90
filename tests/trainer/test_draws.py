"""Which pairs a step sees: all of them, equally often, and the same ones for the same seed."""

from collections import Counter

import pytest
import torch

from training.trainer.draws import bucket_of, shuffled


def turns(steps, batch_size, sizes, seed=0):
    return [bucket_of(step, seed=seed, batch_size=batch_size, sizes=sizes) for step in range(steps)]


def test_an_epoch_of_shuffled_items_has_each_once_in_another_order_each_time():
    items = torch.arange(10, 17)
    row = shuffled(items, seed=0, name="x", start=0, count=21)
    epochs = [row[start : start + 7].tolist() for start in (0, 7, 14)]
    assert all(sorted(epoch) == items.tolist() for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert shuffled(items, seed=0, name="x", start=5, count=4).tolist() == row[5:9].tolist()
    assert shuffled(items, seed=1, name="x", start=0, count=21).tolist() != row.tolist()


def test_one_bucket_is_seen_at_every_step():
    assert turns(5, 8, [3]) == [(0, step) for step in range(5)]


@pytest.mark.parametrize("sizes", [[16, 8, 40], [1, 30], [3, 3, 3, 3], [5, 1, 1]])
def test_every_pair_of_every_bucket_is_seen_equally_often(sizes):
    batch_size, epochs = 4, 40
    steps = sum(epochs * size // batch_size for size in sizes)
    seen = Counter(bucket for bucket, _ in turns(steps, batch_size, sizes))
    assert [seen[bucket] for bucket in range(len(sizes))] == [epochs * size // batch_size for size in sizes]


def test_a_bucket_is_gone_through_in_order_and_without_gaps():
    for bucket in range(3):
        numbers = [turn for chosen, turn in turns(60, 4, [16, 8, 5]) if chosen == bucket]
        assert numbers == list(range(len(numbers)))


def test_the_buckets_of_an_epoch_are_mixed_and_repeatable():
    one = [bucket for bucket, _ in turns(40, 4, [40, 40])]
    assert one == [bucket for bucket, _ in turns(40, 4, [40, 40])]
    assert one != [bucket for bucket, _ in turns(40, 4, [40, 40], seed=1)]
    assert 10 < sum(a != b for a, b in zip(one, one[1:], strict=False))
