"""Sampling in few steps: which timesteps, and that the steps follow the noising chain."""

import pytest
import torch

from training.models.ddim import ddim_step, spread_timesteps
from training.models.noise import NoiseSchedule

LATENT = (4, 8, 8)


@pytest.mark.parametrize(("count", "expected"), [(1, [999]), (4, [999, 749, 499, 249]), (3, [999, 666, 333])])
def test_timesteps_are_spread_over_the_whole_schedule(count, expected):
    assert spread_timesteps(count, 1000) == expected


def test_a_thousand_timesteps_are_all_of_them():
    assert spread_timesteps(1000, 1000) == list(range(999, -1, -1))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_follows_the_noising_chain(prediction_type):
    schedule = NoiseSchedule.scaled_linear(prediction_type)
    clean, noise = torch.randn(2, 2, *LATENT, generator=torch.Generator().manual_seed(0)).unbind(0)
    at = [torch.full((2,), t) for t in (600, 200)]
    noisy, expected = (schedule.add_noise(clean, noise, t) for t in at)
    predicted = schedule.target(clean, noise, at[0])
    torch.testing.assert_close(
        ddim_step(schedule, noisy, predicted, 600, 200), expected, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(ddim_step(schedule, noisy, predicted, 600, None), clean, rtol=1e-4, atol=1e-5)
