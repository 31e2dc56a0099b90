"""Sampling in few steps: which timesteps, and that the steps follow the noising chain."""

import pytest
import torch

from training.models.ddim import ddim_step, spread_timesteps
from training.models.noise import FlowSchedule, NoiseSchedule

LATENT = (4, 8, 8)


@pytest.mark.parametrize(("count", "expected"), [(1, [999]), (4, [999, 749, 499, 249]), (3, [999, 666, 333])])
def test_timesteps_are_spread_over_the_whole_schedule(count, expected):
    assert spread_timesteps(count, 1000) == expected


def test_a_thousand_timesteps_are_all_of_them():
    assert spread_timesteps(1000, 1000) == list(range(999, -1, -1))


SCHEDULES = {
    "epsilon": NoiseSchedule.scaled_linear("epsilon"),
    "v_prediction": NoiseSchedule.scaled_linear("v_prediction"),
    "flow": FlowSchedule.shifted(3.0),
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_perfect_prediction_follows_the_noising_chain(kind):
    schedule = SCHEDULES[kind]
    clean, noise = torch.randn(2, 2, *LATENT, generator=torch.Generator().manual_seed(0)).unbind(0)
    at = [torch.full((2,), t) for t in (600, 200)]
    noisy, expected = (schedule.add_noise(clean, noise, t) for t in at)
    predicted = schedule.target(clean, noise, at[0])
    torch.testing.assert_close(
        ddim_step(schedule, noisy, predicted, 600, 200), expected, rtol=1e-4, atol=1e-5
    )
    torch.testing.assert_close(ddim_step(schedule, noisy, predicted, 600, None), clean, rtol=1e-4, atol=1e-5)


def test_a_step_of_a_flow_is_eulers():
    schedule = FlowSchedule.shifted(3.0)
    noisy, velocity = torch.randn(2, 1, *LATENT, generator=torch.Generator().manual_seed(1)).unbind(0)
    euler = noisy + (schedule.sigmas[300] - schedule.sigmas[700]) * velocity
    torch.testing.assert_close(ddim_step(schedule, noisy, velocity, 700, 300), euler, rtol=1e-5, atol=1e-5)
