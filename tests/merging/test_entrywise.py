"""Sparsifying and combining dense updates: hand-computed numbers, and invariances."""

import pytest
import torch

from training.merging.entrywise import elected_mean, keep_largest, keep_random


def random_delta(seed=0, shape=(40, 30)):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_largest_entries_stay_as_they_are():
    delta = torch.tensor([[3.0, -1.0], [0.5, -4.0]])
    assert torch.equal(keep_largest(delta, 0.5), torch.tensor([[3.0, 0.0], [0.0, -4.0]]))
    assert torch.equal(keep_largest(delta, 0.25), torch.tensor([[0.0, 0.0], [0.0, -4.0]]))
    assert torch.equal(keep_largest(delta, 0.01), torch.tensor([[0.0, 0.0], [0.0, -4.0]]))  # at least one


@pytest.mark.parametrize("density", [0.1, 0.33, 0.9])
def test_the_share_kept_is_the_density(density):
    assert int((keep_largest(random_delta(), density) != 0).sum()) == int(density * 1200)
    dropped = keep_random(random_delta(), density, generator())
    assert abs(int((dropped != 0).sum()) - density * 1200) < 5 * (1200 * density * (1 - density)) ** 0.5


def test_density_one_is_the_identity():
    delta = random_delta()
    assert torch.equal(keep_largest(delta, 1.0), delta)
    assert torch.equal(keep_random(delta, 1.0, generator()), delta)


def test_trimming_does_not_depend_on_scale():
    delta = random_delta()
    assert torch.equal(keep_largest(4 * delta, 0.3), 4 * keep_largest(delta, 0.3))


def test_a_zero_update_stays_zero():
    assert not keep_largest(torch.zeros(3, 4), 0.5).any()
    assert not elected_mean([torch.zeros(3, 4), torch.zeros(3, 4)]).any()


def test_random_dropping_keeps_the_expected_value_and_repeats_with_its_generator():
    delta = random_delta()
    draws = torch.stack([keep_random(delta, 0.5, generator(seed)) for seed in range(400)])
    error = (draws.mean(0) - delta).abs() / delta.abs()
    assert error.mean() < 0.06  # |mean of 400 fair draws of 0 or 2, less 1| is 0.04 on average
    assert torch.equal(keep_random(delta, 0.5, generator(7)), draws[7])


def test_the_sign_of_the_larger_sum_is_elected_and_only_its_entries_are_averaged():
    deltas = [
        torch.tensor([[3.0, -1.0, 0.0]]),
        torch.tensor([[1.0, -2.0, 5.0]]),
        torch.tensor([[-2.0, 4.0, 0.0]]),
    ]
    assert torch.equal(elected_mean(deltas), torch.tensor([[2.0, 4.0, 5.0]]))


def test_opposite_entries_of_one_size_elect_plus():
    assert torch.equal(elected_mean([torch.tensor([[1.0]]), torch.tensor([[-1.0]])]), torch.tensor([[1.0]]))


def test_equal_updates_are_their_own_elected_mean():
    delta = random_delta()
    torch.testing.assert_close(elected_mean([delta, delta, delta]), delta)


def test_the_order_of_the_updates_does_not_decide_an_election():
    deltas = [random_delta(seed) for seed in range(5)]
    torch.testing.assert_close(elected_mean(deltas), elected_mean(deltas[::-1]))
