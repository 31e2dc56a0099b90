"""Beta measured on the pairs: where it opens the sigmoid, what it depends on, and which pairs it refuses."""

import dataclasses

import pytest
import torch

from tiny import tiny_data, tiny_unet
from training.config import TrainConfig
from training.experts import adapter
from training.losses import resolved
from training.models.noise import NoiseSchedule, squared_error
from training.trainer.measured_beta import measured_beta
from training.trainer.run import Run

SCHEDULE = NoiseSchedule.scaled_linear()
CONFIG = resolved(TrainConfig(batch_size=8), lambda: 1.0)


def beta_of(data, schedule=SCHEDULE, micro_batch=8, unet=None):
    unet = unet or tiny_unet()
    adapter.attach_adapter(unet, rank=2, alpha=0, targets="attention", seed=0)
    try:
        run = Run.of(unet, data, schedule, CONFIG)
        return measured_beta(dataclasses.replace(run, micro_batch=micro_batch))
    finally:
        adapter.detach_adapter(unet)


def test_beta_opens_the_sigmoid_to_a_logit_of_two_and_a_half_in_the_noisiest_fifth():
    data, unet = tiny_data(num_pairs=4), tiny_unet()
    gaps = []
    generator = torch.Generator().manual_seed(7)  # other noise and timesteps than `measured_beta` draws
    for _ in range(40):
        timesteps = torch.randint(800, 1000, (4,), generator=generator)
        noise = torch.randn(4, 4, 8, 8, generator=generator)
        errors = []
        for latents in (data.winner, data.loser):
            noisy = SCHEDULE.add_noise(latents, noise, timesteps)
            with torch.no_grad():
                predicted = unet(noisy, timesteps, data.prompts.text_embeds[data.unsafe_prompt]).sample
            errors.append(squared_error(predicted, noise))
        gaps.append((errors[0] - errors[1]).abs())
    logit = beta_of(data, unet=unet) / 2 * torch.cat(gaps).mean().item()
    assert logit == pytest.approx(2.5, rel=0.25)  # 64 and 160 draws of a heavy-tailed difference


def test_beta_does_not_depend_on_the_micro_batch():
    data = tiny_data()
    assert beta_of(data) == beta_of(data, micro_batch=3)


def test_models_with_larger_errors_get_a_smaller_beta():
    # the picture part of both latents doubled: their errors, and so the differences, grow
    data = tiny_data()
    louder = dataclasses.replace(data, winner=4 * data.winner, loser=4 * data.loser)
    assert beta_of(louder) < beta_of(data)


def test_beta_is_rounded_to_two_digits():
    beta = beta_of(tiny_data())
    assert beta == float(f"{beta:.1e}")


def test_v_prediction_is_measured_on_its_own_errors():
    data = tiny_data()
    assert beta_of(data) != beta_of(data, NoiseSchedule.scaled_linear("v_prediction"))


def test_pairs_with_equal_images_are_refused():
    data = tiny_data()
    with pytest.raises(ValueError, match="are the same to this model"):
        beta_of(dataclasses.replace(data, loser=data.winner))
