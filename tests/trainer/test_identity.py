"""Which saved state belongs to a run: another option, pair, schedule or base model is refused."""

import dataclasses

import pytest

from tiny import tiny_data, tiny_unet
from tiny_runs import SMALL, equal_layers, run
from training.models.noise import NoiseSchedule
from training.trainer.state import load_newest, save_state


def test_resuming_another_run_is_refused_with_the_differences(tmp_path):
    run(run_dir=tmp_path)
    with pytest.raises(ValueError, match="cannot be resumed: learning_rate was 0.01 and is 0.02; rank was 2"):
        run(dataclasses.replace(SMALL, rank=4, learning_rate=0.02), run_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match="the pairs or their encoding have changed"):
        run(data=tiny_data(seed=1), run_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match="the base model is a different one"):
        run(unet=tiny_unet(seed=1), run_dir=tmp_path, resume=True)


def unet_changed_in(part):
    unet = tiny_unet()
    for name, weight in unet.named_parameters():
        if part in name:
            weight.data.mul_(-3)
    return unet


@pytest.mark.parametrize("part", ["conv_out.weight", "attn2.to_k", "time_embedding.linear_1.bias"])
def test_a_base_model_edited_anywhere_is_refused(tmp_path, part):
    run(dataclasses.replace(SMALL, steps=1), run_dir=tmp_path)
    with pytest.raises(ValueError, match="cannot be resumed: the base model is a different one"):
        run(unet=unet_changed_in(part), run_dir=tmp_path, resume=True)


def test_a_run_is_not_resumed_under_another_noise_schedule(tmp_path):
    run(dataclasses.replace(SMALL, steps=1), run_dir=tmp_path)
    with pytest.raises(ValueError, match="prediction_type was 'epsilon' and is 'v_prediction'"):
        run(schedule=NoiseSchedule.scaled_linear("v_prediction"), run_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match="cannot be resumed: the noise schedule has changed"):
        run(schedule=NoiseSchedule.scaled_linear(beta_end=0.013), run_dir=tmp_path, resume=True)


def test_a_state_without_the_hash_of_its_base_model_is_refused(tmp_path):
    run(dataclasses.replace(SMALL, steps=1), run_dir=tmp_path)
    state = load_newest(tmp_path / "state")
    values = {name: value for name, value in state.values.items() if name != "base_hash"}
    save_state(tmp_path / "state", dataclasses.replace(state, values=values))
    with pytest.raises(ValueError, match="earlier version, which did not record the whole base model"):
        run(run_dir=tmp_path, resume=True)


def test_an_older_state_with_precision_auto_is_resumed(tmp_path):
    run(dataclasses.replace(SMALL, steps=2), run_dir=tmp_path)
    state = load_newest(tmp_path / "state")
    state.values["settings"]["precision"] = "auto"
    save_state(tmp_path / "state", state)
    assert equal_layers(run(run_dir=tmp_path, resume=True), run())
