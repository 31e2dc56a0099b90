"""The progress of a run: the way back from a loss that is not finite."""

import dataclasses
import math

import pytest
import torch

from tiny import tiny_data
from tiny_runs import SMALL, broken_after, equal_layers, metrics_of, run
from training.trainer import step as training_step
from training.trainer.state import load_newest


def test_a_loss_that_is_not_finite_goes_back_to_the_last_good_state(tmp_path):
    data, report = broken_after(2)
    kept = []
    with pytest.raises(
        RuntimeError, match=r"loss is not finite \(nan\) in step 3. The adapter was set back to step 1\."
    ):
        run(data=data, on_progress=report, on_stop=kept.append, run_dir=tmp_path)
    assert kept[0].steps_done == len(kept[0].losses) == kept[0].metrics["step"] == 1
    assert equal_layers(kept[0], run(dataclasses.replace(SMALL, steps=1), data=tiny_data(num_pairs=2)))
    assert load_newest(tmp_path / "state").step == 1


def test_a_first_loss_that_is_not_finite_leaves_nothing(tmp_path):
    data = tiny_data()
    data.winner.fill_(math.nan)
    kept = []
    with pytest.raises(RuntimeError, match="not finite"):
        run(data=data, on_stop=kept.append, run_dir=tmp_path)
    assert kept == []
    assert load_newest(tmp_path / "state") is None


@pytest.mark.parametrize(("value", "named"), [(math.inf, " of down_blocks.*attn1.to_q.down"), (math.nan, "")])
def test_a_gradient_that_is_not_finite_is_named_before_the_optimizer_takes_it(monkeypatch, value, named):
    def spoiled(run, progress, draw):
        figures = accumulate_gradients(run, progress, draw)
        next(iter(run.parameters.values())).grad.view(-1)[0] = value
        return figures

    accumulate_gradients = training_step.accumulate_gradients
    monkeypatch.setattr(training_step, "accumulate_gradients", spoiled)
    with pytest.raises(RuntimeError, match=rf"^grad_norm{named} is not finite \({value}\) in step 1\."):
        run()


def test_a_watched_figure_that_is_not_finite_never_reaches_the_metrics(monkeypatch, tmp_path):
    def spoiled(run, progress, draw):
        figures, ref_errors = accumulate_gradients(run, progress, draw)
        wrong = {"margin": torch.tensor(math.inf)} if progress.step == 1 else {}
        return figures | wrong, ref_errors

    accumulate_gradients = training_step.accumulate_gradients
    monkeypatch.setattr(training_step, "accumulate_gradients", spoiled)
    with pytest.raises(RuntimeError, match=r"^margin is not finite \(inf\) in step 2\."):
        run(run_dir=tmp_path)
    assert [line["step"] for line in metrics_of(tmp_path)] == [1]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precisions_follow_fp32_and_fp16_scales_its_loss(precision, tmp_path):
    config = dataclasses.replace(SMALL, precision=precision)
    half, whole = run(config, run_dir=tmp_path), run()
    assert half.losses == pytest.approx(whole.losses, rel=0.05)
    scaler = load_newest(tmp_path / "state").values["scaler"]
    assert bool(scaler) == (precision == "fp16")


def test_a_gradient_that_stays_infinite_stops_an_fp16_run_too(monkeypatch):
    def spoiled(run, progress, draw):
        figures = accumulate_gradients(run, progress, draw)
        if progress.step >= 2:
            next(iter(run.parameters.values())).grad.fill_(math.nan)
        return figures

    accumulate_gradients, kept = training_step.accumulate_gradients, []
    monkeypatch.setattr(training_step, "accumulate_gradients", spoiled)
    config = dataclasses.replace(SMALL, precision="fp16", steps=60, lr_schedule="constant")
    with pytest.raises(RuntimeError, match="grad_norm is not finite .* Or use precision fp32"):
        run(config, on_stop=kept.append)
    assert kept[0].steps_done < 30  # the scale falls from 65536 to below 1
    assert equal_layers(kept[0], run(dataclasses.replace(config, steps=2, precision="fp16")))
