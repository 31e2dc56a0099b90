"""Random choices: all pairs are seen equally often, and the same seed gives the same draws."""

from collections import Counter

import pytest
import torch

from training.trainer.draws import DrawRules, bucket_of, fixed_draws, shuffled


def turns(steps, batch_size, sizes, seed=0):
    return [bucket_of(step, seed=seed, batch_size=batch_size, sizes=sizes) for step in range(steps)]


def test_every_epoch_has_all_items_once_in_a_new_order():
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


def test_the_batches_of_a_bucket_are_numbered_without_gaps():
    for bucket in range(3):
        numbers = [turn for chosen, turn in turns(60, 4, [16, 8, 5]) if chosen == bucket]
        assert numbers == list(range(len(numbers)))


def test_the_buckets_of_an_epoch_are_mixed_and_repeatable():
    one = [bucket for bucket, _ in turns(40, 4, [40, 40])]
    assert one == [bucket for bucket, _ in turns(40, 4, [40, 40])]
    assert one != [bucket for bucket, _ in turns(40, 4, [40, 40], seed=1)]
    assert 10 < sum(a != b for a, b in zip(one, one[1:], strict=False))


def drawn(pairs, numbers, num_timesteps=1000):
    rules = DrawRules(seed=1, num_timesteps=num_timesteps, caption_dropout=0.5, flip=0.5, num_fixed=4)
    return fixed_draws(torch.tensor(pairs), torch.tensor(numbers), rules, latent_shape=(4, 8, 8))


@pytest.mark.parametrize("num_timesteps", [1000, 750])
def test_the_draws_of_a_pair_are_fixed_and_spread_over_all_timesteps(num_timesteps):
    four = drawn([3] * 4, range(4), num_timesteps=num_timesteps)
    assert sorted(four.timesteps * 4 // num_timesteps) == [0, 1, 2, 3]
    again = drawn([5, 3], [0, 2], num_timesteps=num_timesteps)
    for of_all, of_two in zip(four, again, strict=True):
        assert torch.equal(of_all[2], of_two[1])
    assert not torch.equal(four.noise[0], again.noise[0])


def test_each_draw_is_uniform_over_the_timesteps_and_noise_is_standard_normal():
    one = drawn(list(range(400)), [1] * 400)
    parts = torch.bincount(one.timesteps // 250, minlength=4)
    assert parts.min() > 70  # 100 expected, 9 its standard deviation
    assert one.noise.mean().abs() < 0.02
    assert one.noise.std().item() == pytest.approx(1, abs=0.02)
    assert one.dropped.float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert one.flipped.float().mean().item() == pytest.approx(0.5, abs=0.1)
