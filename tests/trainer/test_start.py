"""What is refused before the first step, and which beta a run starts with."""

import dataclasses

import pytest
import torch

from tiny import tiny_data, tiny_unet
from tiny_runs import SCHEDULE, SMALL, Cancel, cancel_at, equal_layers, run
from training.experts import adapter
from training.losses import resolved
from training.trainer.measured_beta import measured_beta
from training.trainer.run import Run


def test_inference_mode_is_refused_by_name():
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"inside torch.inference_mode\(False\)"):
        run()
    with torch.inference_mode():
        unet = tiny_unet()
    with pytest.raises(RuntimeError, match="made in inference mode"):
        run(unet=unet)


def test_an_adapter_left_by_an_earlier_run_is_removed():
    unet = tiny_unet()
    adapter.attach_adapter(unet, rank=1, alpha=0, targets="attention", seed=9)
    assert equal_layers(run(unet=unet), run())


def test_options_and_data_that_cannot_be_trained_are_refused():
    with pytest.raises(ValueError, match="objective must be one of alignguard, anchored.*got 'magic'"):
        run(dataclasses.replace(SMALL, objective="magic"))
    with pytest.raises(ValueError, match="there is no pair to train on"):
        run(data=tiny_data(num_pairs=0))
    with pytest.raises(ValueError, match="resume needs the run folder"):
        run(resume=True)


def test_flip_without_mirrored_images_is_refused():
    config = dataclasses.replace(SMALL, flip=0.5)
    with pytest.raises(ValueError, match="flip needs mirrored images"):
        run(config)
    assert not equal_layers(run(config, data=tiny_data(mirrored=True)), run(data=tiny_data(mirrored=True)))


def test_beta_zero_takes_the_default_of_the_objective_or_a_measured_beta():
    left_open, unet = dataclasses.replace(SMALL, steps=1, beta=0.0), tiny_unet()
    adapter.attach_adapter(unet, rank=2, alpha=0, targets="attention", seed=0)
    measured = measured_beta(Run.of(unet, tiny_data(), SCHEDULE, resolved(left_open, lambda: 1.0)))
    assert run(left_open).config.beta == measured
    assert run(dataclasses.replace(left_open, objective="alignguard")).config.beta == 5000


def test_a_resumed_run_keeps_its_measured_beta_and_refuses_another(monkeypatch, tmp_path):
    measured = dataclasses.replace(SMALL, beta=0.0)
    monkeypatch.setattr("training.trainer.start.measured_beta", lambda run: 480.0)
    unbroken = run(measured)
    with pytest.raises(Cancel):
        run(measured, run_dir=tmp_path, on_progress=cancel_at(2))
    monkeypatch.setattr("training.trainer.start.measured_beta", lambda run: 490.0)  # another device
    resumed = run(measured, run_dir=tmp_path, resume=True)
    assert equal_layers(resumed, unbroken)
    assert resumed.config == unbroken.config
    with pytest.raises(ValueError, match="cannot be resumed: beta was 480.0 and is 490.0"):
        run(dataclasses.replace(SMALL, beta=490.0), run_dir=tmp_path, resume=True)
    assert run(measured, run_dir=tmp_path).config.beta == 490.0  # begun anew
