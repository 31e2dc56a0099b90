"""Noise, targets and errors against diffusers' scheduler and numbers computed by hand."""

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from training.losses.errors import pair_errors
from training.models.noise import FlowSchedule, NoiseSchedule, squared_error

TIMESTEPS = torch.tensor([0, 1, 499, 999])


@pytest.fixture(params=["epsilon", "v_prediction"])
def schedule(request):
    return NoiseSchedule.scaled_linear(request.param)


@pytest.fixture
def oracle():
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def latents_and_noise(num=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, num, 4, 8, 8, generator=generator)


def test_schedule_equals_diffusers(schedule, oracle):
    torch.testing.assert_close(
        schedule.alphas_cumprod, oracle.alphas_cumprod, rtol=2e-5, atol=0
    )  # its fp32 product
    assert schedule.alphas_cumprod.dtype == torch.float32


def test_noise_and_velocity_equal_diffusers(oracle):
    latents, noise = latents_and_noise()
    schedule = NoiseSchedule.scaled_linear("v_prediction")
    close = {"rtol": 1e-4, "atol": 1e-5}  # the schedule itself agrees to 2e-5
    added = schedule.add_noise(latents, noise, TIMESTEPS)
    torch.testing.assert_close(added, oracle.add_noise(latents, noise, TIMESTEPS), **close)
    velocity = schedule.target(latents, noise, TIMESTEPS)
    torch.testing.assert_close(velocity, oracle.get_velocity(latents, noise, TIMESTEPS), **close)


def test_epsilon_target_is_the_noise():
    latents, noise = latents_and_noise()
    assert torch.equal(NoiseSchedule.scaled_linear().target(latents, noise, TIMESTEPS), noise)


def test_velocity_and_noisy_latents_give_the_clean_latents_back():
    latents, noise = latents_and_noise()
    schedule = NoiseSchedule.scaled_linear("v_prediction")
    a = schedule.alphas_cumprod[TIMESTEPS].reshape(-1, 1, 1, 1)
    noisy, velocity = (f(latents, noise, TIMESTEPS) for f in (schedule.add_noise, schedule.target))
    torch.testing.assert_close(a.sqrt() * noisy - (1 - a).sqrt() * velocity, latents, rtol=1e-4, atol=1e-5)


def test_noisy_latents_are_fp32_whatever_comes_in(schedule):
    latents, noise = latents_and_noise()
    assert schedule.add_noise(latents.half(), noise.half(), TIMESTEPS).dtype == torch.float32
    assert schedule.target(latents.half(), noise.half(), TIMESTEPS).dtype == torch.float32


def test_squared_error_by_hand():
    prediction = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]])
    target = torch.tensor([[[[0.0, 0.0]]], [[[3.0, 1.0]]]])
    assert squared_error(prediction, target).tolist() == [2.5, 5.0]


def test_squared_error_of_half_predictions_is_formed_in_fp32():
    prediction = torch.full((1, 1, 1, 2), 0.1, dtype=torch.float16)
    error = squared_error(prediction, torch.zeros(1, 1, 1, 2))
    assert error.dtype == torch.float32
    assert error.item() == float(prediction.float()[0, 0, 0, 0]) ** 2  # not rounded to fp16


def test_pair_errors_split_winners_from_losers():
    errors = pair_errors(torch.tensor([1.0, 2, 3, 4]), torch.tensor([5.0, 6, 7, 8]))
    assert [part.tolist() for part in errors] == [[1, 2], [3, 4], [5, 6], [7, 8]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_equal_predictions_give_a_logit_of_exactly_zero(dtype):
    prediction, target = latents_and_noise(6)
    policy = prediction.to(dtype)
    errors = pair_errors(squared_error(policy, target), squared_error(policy.clone(), target))
    margin = (errors.winner - errors.loser) - (errors.ref_winner - errors.ref_loser)
    assert margin.count_nonzero() == 0


def test_gradients_flow_to_the_policy():
    policy = torch.zeros(2, 1, 1, 1, requires_grad=True)
    errors = squared_error(policy, torch.ones(2, 1, 1, 1))
    pair_errors(errors, torch.zeros(2)).winner.sum().backward()
    assert policy.grad.flatten().tolist() == [-2.0, 0.0]


def test_mismatching_shapes_are_refused():
    with pytest.raises(ValueError, match="must have the same shape"):
        squared_error(torch.zeros(2, 4, 8, 8), torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match="winners and losers must be equal in number, .* got 3"):
        pair_errors(torch.zeros(3), torch.zeros(3))


@pytest.mark.parametrize(
    ("alphas", "prediction_type", "message"),
    [
        (torch.ones(1000), "sample", "epsilon, v_prediction, got 'sample'"),
        (torch.ones(10), "epsilon", r"\(1000,\), got \(10,\)"),
        (torch.full((1000,), 1.5), "epsilon", r"\[0, 1\]"),
        (torch.full((1000,), float("nan")), "epsilon", r"\[0, 1\]"),
        (torch.linspace(0, 1, 1000), "epsilon", "must not increase"),
    ],
)
def test_impossible_schedules_are_refused(alphas, prediction_type, message):
    with pytest.raises(ValueError, match=message):
        NoiseSchedule(alphas, prediction_type)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_shifted_flow_has_the_noise_levels_of_diffusers(shift):
    oracle = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)
    torch.testing.assert_close(FlowSchedule.shifted(shift).sigmas, oracle.sigmas[:1000].flip(0))


def test_a_flow_mixes_latents_and_noise_and_its_target_is_the_velocity_between_them():
    flow, (latents, noise) = FlowSchedule.shifted(3.0), latents_and_noise()
    sigma = flow.sigmas[TIMESTEPS][:, None, None, None]
    noisy = flow.add_noise(latents, noise, TIMESTEPS)
    torch.testing.assert_close(noisy, latents + sigma * (noise - latents), rtol=1e-5, atol=1e-6)
    assert torch.equal(flow.add_noise(latents, noise, torch.full((4,), 999)), noise)  # ends in pure noise
    assert torch.equal(flow.target(latents, noise, TIMESTEPS), noise - latents)


def test_a_perfect_prediction_splits_into_latents_and_noise_on_every_schedule():
    latents, noise = latents_and_noise()
    kinds = [NoiseSchedule.scaled_linear(kind) for kind in ("epsilon", "v_prediction")]
    for any_schedule in (*kinds, FlowSchedule.shifted(3.0)):
        at = torch.full((4,), 700)
        noisy, target = (f(latents, noise, at) for f in (any_schedule.add_noise, any_schedule.target))
        parts = any_schedule.split(noisy, target, 700)
        for part, expected in zip(parts, (latents, noise), strict=True):
            torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-4)
        assert len(any_schedule) == 1000


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        (torch.ones(10), r"\(1000,\), got \(10,\)"),
        (torch.linspace(0, 1, 1000), r"\(0, 1\]"),
        (torch.full((1000,), float("nan")), r"\(0, 1\]"),
        (torch.linspace(1, 0.1, 1000), "must not decrease"),
    ],
)
def test_impossible_flows_are_refused(sigmas, message):
    with pytest.raises(ValueError, match=message):
        FlowSchedule(sigmas)
