"""The training loop on a tiny UNet: exact at the start, repeatable, and never losing what it has."""

import dataclasses
import math

import pytest
import torch

from tiny import predict, tiny_data, tiny_unet
from tiny_runs import SCHEDULE, SMALL, Cancel, broken_after, cancel_at, equal_layers, metrics_of, run
from training.config import TrainConfig
from training.experts import adapter
from training.losses import LOSSES, resolved
from training.models.noise import NoiseSchedule
from training.trainer import run_folder
from training.trainer import state as checkpoint
from training.trainer import step as training_step
from training.trainer.measured_beta import measured_beta
from training.trainer.run import Run, autocast_dtype, named_precision
from training.trainer.step import learning_rate


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("objective", LOSSES)
def test_the_first_step_has_logit_zero_and_loss_log_two_exactly(objective, precision, prediction_type):
    config = dataclasses.replace(SMALL, objective=objective, precision=precision, steps=1)
    first = run(config, schedule=NoiseSchedule.scaled_linear(prediction_type)).metrics
    assert first["margin"] == first["implicit_accuracy"] == first["distance"] == 0.0
    # log 2 once per kind of row, added and halved: exact in fp32
    assert first["preference"] == torch.tensor(2.0).log().item()
    assert first.get("preservation", 0.0) == first.get("output_preservation", 0.0) == 0.0


def test_the_loss_is_the_sum_of_its_parts_and_alignguard_has_one_part():
    paper = run(dataclasses.replace(SMALL, objective="alignguard")).metrics
    assert paper["loss"] == paper["preference"]
    assert not {"winner_anchor", "preservation"} & paper.keys()
    own = run(dataclasses.replace(SMALL, objective="anchored")).metrics
    parts = own["preference"] + own["winner_anchor"] + own["preservation"]
    assert own["loss"] == pytest.approx(parts, rel=1e-6)


@pytest.mark.parametrize("objective", LOSSES)
def test_training_on_one_pair_widens_its_margin(objective):
    config = dataclasses.replace(
        SMALL, objective=objective, steps=5, batch_size=4, caption_dropout=0.0, anchor_weight=1.0
    )
    assert run(config, data=tiny_data(num_pairs=1)).metrics["margin"] > 0


def test_equal_seeds_give_equal_loras_and_other_seeds_others():
    one, two = run(), run()
    assert equal_layers(one, two)
    assert one.losses == two.losses
    assert not equal_layers(one, run(dataclasses.replace(SMALL, seed=4)))


def test_the_global_random_state_is_untouched_and_does_not_matter():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = run()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert equal_layers(one, run())


def test_the_unet_comes_back_as_it_was():
    unet = tiny_unet()
    before, keys = predict(unet), list(unet.state_dict())
    result = run(unet=unet)
    with pytest.raises(Cancel):
        run(unet=unet, on_progress=cancel_at(1))
    assert torch.equal(predict(unet), before)
    assert list(unet.state_dict()) == keys
    assert not any(parameter.requires_grad for parameter in unet.parameters())
    assert result.layers.keys() == {name for name in result.layers if name in dict(unet.named_modules())}


def test_the_reference_runs_first_and_without_gradients():
    unet, calls = tiny_unet(), []

    def record(module, args, kwargs):
        layer = next(m for m in module.modules() if hasattr(m, "lora_A"))
        calls.append(("reference" if layer.disable_adapters else "policy", torch.is_grad_enabled()))

    unet.register_forward_pre_hook(record, with_kwargs=True)
    run(dataclasses.replace(SMALL, steps=1, grad_accumulation=2), unet=unet)
    assert calls == [("reference", False), ("policy", True)] * 2


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        ({"objective": "alignguard"}, 8),  # 2 pairs, winner and loser, two prompts
        ({"objective": "alignguard", "safe_prompt_weight": 0.0}, 4),
        ({"objective": "anchored"}, 10),  # and two neutral rows
        ({"objective": "anchored", "preserve_weight": 0.0}, 8),
        ({"objective": "alignguard", "preserve_weight": 1.0}, 10),
        ({"objective": "duo"}, 6),  # 2 pairs under the empty prompt, and as many of pure noise
        ({"objective": "duo", "preserve_weight": 0.0}, 4),
        ({"objective": "duo", "prompts": "pair"}, 10),
    ],
)
def test_only_rows_that_weigh_something_are_run(change, rows):
    unet, sizes = tiny_unet(), []
    unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    run(dataclasses.replace(SMALL, steps=1, **change), unet=unet)
    assert sizes == [rows, rows]


def test_flips_need_mirrored_pictures():
    config = dataclasses.replace(SMALL, flip=0.5)
    with pytest.raises(ValueError, match="flip needs mirrored pictures"):
        run(config)
    assert not equal_layers(run(config, data=tiny_data(mirrored=True)), run(data=tiny_data(mirrored=True)))


def test_accumulated_gradients_equal_those_of_the_whole_batch():
    whole = run(dataclasses.replace(SMALL, batch_size=4))
    parts = run(dataclasses.replace(SMALL, batch_size=2, grad_accumulation=2))
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)  # Adam divides by small gradients


def test_a_half_precision_base_trains_fp32_factors():
    unet = tiny_unet().bfloat16()
    result = run(dataclasses.replace(SMALL, steps=2), unet=unet)
    assert all(layer.up.dtype == torch.float32 for layer in result.layers.values())
    assert any(layer.up.count_nonzero() for layer in result.layers.values())


def test_alpha_over_rank_is_folded_into_the_result():
    config = dataclasses.replace(SMALL, steps=1, max_grad_norm=0.0)
    # Adam's first step has the size of the rate whatever the gradient, so the factor alone remains
    plain, doubled = run(config), run(dataclasses.replace(config, alpha=4.0))
    ratio = [doubled.layers[n].up.norm() / plain.layers[n].up.norm() for n in plain.layers]
    assert sorted(ratio)[len(ratio) // 2].item() == pytest.approx(2, rel=1e-2)


def test_progress_is_reported_after_every_step():
    seen = []
    result = run(on_progress=lambda *reported: seen.append(reported))
    assert [(done, total) for done, total, _ in seen] == [(1, 3), (2, 3), (3, 3)]
    assert [figures["loss"] for *_, figures in seen] == result.losses
    assert (result.steps_done, result.cancelled) == (3, False)


def test_a_beta_that_is_left_open_is_the_objectives_own_or_measured_before_the_first_step():
    left_open, unet = dataclasses.replace(SMALL, steps=1, beta=0.0), tiny_unet()
    adapter.attach_adapter(unet, rank=2, alpha=0, targets="attention", seed=0)
    measured = measured_beta(Run(unet, tiny_data(), SCHEDULE, resolved(left_open, lambda: 1.0), None))
    assert run(left_open).config.beta == measured
    assert run(dataclasses.replace(left_open, objective="alignguard")).config.beta == 5000


def test_a_cancel_stops_within_one_step_and_keeps_the_state(tmp_path):
    kept = []
    with pytest.raises(Cancel):
        run(on_progress=cancel_at(2), on_stop=kept.append, run_dir=tmp_path)
    assert checkpoint.load_newest(tmp_path / "state").step == 2
    assert len(metrics_of(tmp_path)) == 2
    (result,) = kept
    assert (result.steps_done, result.cancelled, len(result.losses)) == (2, True, 2)
    assert equal_layers(result, run(dataclasses.replace(SMALL, steps=2)))


@pytest.mark.parametrize("save_every", [0, 1])
def test_a_resumed_run_ends_with_the_same_bytes(tmp_path, save_every):
    config = dataclasses.replace(SMALL, steps=4, save_every=save_every)
    unbroken = run(config, run_dir=tmp_path / "unbroken")
    with pytest.raises(Cancel):
        run(config, run_dir=tmp_path / "broken", on_progress=cancel_at(2))
    resumed = run(config, run_dir=tmp_path / "broken", resume=True)
    assert equal_layers(resumed, unbroken)
    assert resumed.losses == unbroken.losses
    assert resumed.initial_a_hash == unbroken.initial_a_hash
    assert metrics_of(tmp_path / "broken") == metrics_of(tmp_path / "unbroken")


def test_a_killed_run_goes_on_from_its_last_saved_state(tmp_path):
    config = dataclasses.replace(SMALL, steps=4, save_every=2)
    unbroken = run(config)
    with pytest.raises(Cancel):
        run(config, run_dir=tmp_path, on_progress=cancel_at(3))
    (tmp_path / "state" / "step_00000003.safetensors").unlink()  # a killed process saves nothing at the end
    assert equal_layers(run(config, run_dir=tmp_path, resume=True), unbroken)
    assert [line["step"] for line in metrics_of(tmp_path)] == [1, 2, 3, 4]


def test_a_finished_run_can_be_given_more_steps(tmp_path):
    run(run_dir=tmp_path)
    longer = dataclasses.replace(SMALL, steps=5)
    assert equal_layers(run(longer, run_dir=tmp_path, resume=True), run(longer))
    with pytest.raises(ValueError, match="has 5 steps behind it, more than the 3"):
        run(run_dir=tmp_path, resume=True)


def test_resuming_where_nothing_is_starts_from_the_beginning(tmp_path):
    assert equal_layers(run(run_dir=tmp_path, resume=True), run())


def test_resuming_another_run_is_refused_with_the_differences(tmp_path):
    run(run_dir=tmp_path)
    with pytest.raises(ValueError, match="cannot be resumed: learning_rate was 0.01 and is 0.02; rank was 2"):
        run(dataclasses.replace(SMALL, rank=4, learning_rate=0.02), run_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match="the pairs or their encoding have changed"):
        run(data=tiny_data(seed=1), run_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match="the base model is another one"):
        run(unet=tiny_unet(seed=1), run_dir=tmp_path, resume=True)


def test_a_measured_beta_is_kept_on_resume_and_another_typed_one_is_refused(monkeypatch, tmp_path):
    measured = dataclasses.replace(SMALL, beta=0.0)
    monkeypatch.setattr("training.trainer.loop.measured_beta", lambda run: 480.0)
    unbroken = run(measured)
    with pytest.raises(Cancel):
        run(measured, run_dir=tmp_path, on_progress=cancel_at(2))
    monkeypatch.setattr("training.trainer.loop.measured_beta", lambda run: 490.0)  # another device or version
    resumed = run(measured, run_dir=tmp_path, resume=True)
    assert equal_layers(resumed, unbroken)
    assert resumed.config == unbroken.config
    with pytest.raises(ValueError, match="cannot be resumed: beta was 480.0 and is 490.0"):
        run(dataclasses.replace(SMALL, beta=490.0), run_dir=tmp_path, resume=True)
    assert run(measured, run_dir=tmp_path).config.beta == 490.0  # begun anew


def unet_changed_in(part):
    unet = tiny_unet()
    for name, weight in unet.named_parameters():
        if part in name:
            weight.data.mul_(-3)
    return unet


@pytest.mark.parametrize("part", ["conv_out.weight", "attn2.to_k", "time_embedding.linear_1.bias"])
def test_a_base_model_edited_anywhere_is_another_one(tmp_path, part):
    run(dataclasses.replace(SMALL, steps=1), run_dir=tmp_path)
    with pytest.raises(ValueError, match="cannot be resumed: the base model is another one"):
        run(unet=unet_changed_in(part), run_dir=tmp_path, resume=True)


def test_a_run_is_not_resumed_under_another_noise_schedule(tmp_path):
    run(dataclasses.replace(SMALL, steps=1), run_dir=tmp_path)
    with pytest.raises(ValueError, match="prediction_type was 'epsilon' and is 'v_prediction'"):
        run(schedule=NoiseSchedule.scaled_linear("v_prediction"), run_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match="cannot be resumed: the noise schedule has changed"):
        run(schedule=NoiseSchedule.scaled_linear(beta_end=0.013), run_dir=tmp_path, resume=True)


def test_a_state_that_does_not_say_its_base_model_is_refused(tmp_path):
    run(dataclasses.replace(SMALL, steps=1), run_dir=tmp_path)
    state = checkpoint.load_newest(tmp_path / "state")
    values = {name: value for name, value in state.values.items() if name != "base_hash"}
    checkpoint.save_state(tmp_path / "state", dataclasses.replace(state, values=values))
    with pytest.raises(ValueError, match="of an earlier version, which did not note the whole base model"):
        run(run_dir=tmp_path, resume=True)


def test_a_second_run_in_the_same_folder_renames_the_first(tmp_path):
    for _ in range(2):
        run(dataclasses.replace(SMALL, steps=1), run_dir=tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"in_use.lock", "state", "state-1", "metrics.jsonl", "metrics-1.jsonl"}


def test_a_loss_that_is_not_finite_goes_back_to_the_last_good_state(tmp_path):
    data, report = broken_after(2)
    kept = []
    with pytest.raises(
        RuntimeError, match=r"loss is not finite \(nan\) in step 3. The adapter is that of step 1"
    ):
        run(data=data, on_progress=report, on_stop=kept.append, run_dir=tmp_path)
    assert kept[0].steps_done == len(kept[0].losses) == kept[0].metrics["step"] == 1
    assert equal_layers(kept[0], run(dataclasses.replace(SMALL, steps=1), data=tiny_data(num_pairs=2)))
    assert checkpoint.load_newest(tmp_path / "state").step == 1


def test_a_first_loss_that_is_not_finite_leaves_nothing(tmp_path):
    data = tiny_data()
    data.winner.fill_(math.nan)
    kept = []
    with pytest.raises(RuntimeError, match="not finite"):
        run(data=data, on_stop=kept.append, run_dir=tmp_path)
    assert kept == []
    assert checkpoint.load_newest(tmp_path / "state") is None


def full_disk(*_):
    raise OSError(28, "No space left on device")


def test_a_cancel_between_two_micro_batches_keeps_the_steps_before(tmp_path):
    asked, kept = [], []

    def check():
        asked.append(True)
        if len(asked) == 6:  # 2 for each step
            raise Cancel

    with pytest.raises(Cancel):
        run(
            dataclasses.replace(SMALL, batch_size=1, grad_accumulation=2, steps=5),
            check_cancel=check,
            on_stop=kept.append,
            run_dir=tmp_path,
        )
    assert kept[0].steps_done == checkpoint.load_newest(tmp_path / "state").step == 2
    whole = run(dataclasses.replace(SMALL, batch_size=1, grad_accumulation=2, steps=2))
    assert equal_layers(kept[0], whole)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precisions_follow_fp32_and_fp16_scales_its_loss(precision, tmp_path):
    config = dataclasses.replace(SMALL, precision=precision)
    half, whole = run(config, run_dir=tmp_path), run()
    assert half.losses == pytest.approx(whole.losses, rel=0.05)
    scaler = checkpoint.load_newest(tmp_path / "state").values["scaler"]
    assert bool(scaler) == (precision == "fp16")


def test_a_gradient_that_stays_not_finite_stops_an_fp16_run_too(monkeypatch):
    def spoiled(run, *arguments):
        values = whole(run, *arguments)
        if run.step >= 2:
            next(iter(run.parameters.values())).grad.fill_(math.nan)
        return values

    whole, kept = training_step._backward, []
    monkeypatch.setattr(training_step, "_backward", spoiled)
    config = dataclasses.replace(SMALL, precision="fp16", steps=60, lr_schedule="constant")
    with pytest.raises(RuntimeError, match="grad_norm is not finite .* Or use precision fp32"):
        run(config, on_stop=kept.append)
    assert kept[0].steps_done < 30  # the scale falls from 65536 to below 1
    assert equal_layers(kept[0], run(dataclasses.replace(config, steps=2, precision="fp16")))


def test_a_run_saves_by_time_where_no_number_of_steps_was_given(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "SAVE_AFTER_S", 0.0)
    states = []

    def look(done, *_):
        states.append([state.stem for state in (tmp_path / "state").glob("*.safetensors")])

    run(SMALL, run_dir=tmp_path, on_progress=look)
    assert [f"step_{step:08}" in names for step, names in enumerate(states, 1)] == [True, True, False]


def test_a_state_that_does_not_fit_on_the_disk_does_not_cost_the_result(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(checkpoint, "save_state", full_disk)
    assert equal_layers(run(run_dir=tmp_path), run())
    assert "the state after step 3 could not be saved: [Errno 28]" in caplog.text


def test_a_full_disk_does_not_hide_why_a_run_stopped(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(checkpoint, "save_state", full_disk)
    with pytest.raises(Cancel):
        run(on_progress=cancel_at(2), on_stop=full_disk, run_dir=tmp_path)
    assert "the state after step 2 could not be saved" in caplog.text
    assert "what there is after step 2 could not be saved" in caplog.text


def test_inference_mode_is_named():
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"inside torch.inference_mode\(False\)"):
        run()
    with torch.inference_mode():
        unet = tiny_unet()
    with pytest.raises(RuntimeError, match="made in inference mode"):
        run(unet=unet)


def test_gradients_are_switched_on_where_the_caller_has_them_off():
    with torch.no_grad():
        assert equal_layers(run(), run())


def test_an_adapter_left_by_an_earlier_run_is_taken_off():
    unet = tiny_unet()
    adapter.attach_adapter(unet, rank=1, alpha=0, targets="attention", seed=9)
    assert equal_layers(run(unet=unet), run())


def test_what_cannot_be_trained_is_refused_before_it_starts():
    with pytest.raises(ValueError, match="objective must be one of alignguard, anchored.*got 'magic'"):
        run(dataclasses.replace(SMALL, objective="magic"))
    with pytest.raises(ValueError, match="there is no pair to train on"):
        run(data=tiny_data(num_pairs=0))
    with pytest.raises(ValueError, match="resume needs the run folder"):
        run(resume=True)


def test_the_learning_rate_rises_and_stays():
    config = TrainConfig(learning_rate=1.0, warmup_steps=4, lr_schedule="constant")
    assert [learning_rate(config, step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert learning_rate(TrainConfig(learning_rate=0.5), 0) == 0.5


def test_under_cosine_the_learning_rate_is_halved_half_way_and_ends_near_zero():
    rates = [learning_rate(TrainConfig(learning_rate=1.0, steps=100), step) for step in range(100)]
    assert rates[0] == 1.0
    assert rates[50] == pytest.approx(0.5)
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 1e-3


def test_under_cosine_a_run_resumes_to_the_same_bytes_but_cannot_be_prolonged(tmp_path):
    cosine = dataclasses.replace(SMALL, lr_schedule="cosine")
    with pytest.raises(Cancel):
        run(cosine, run_dir=tmp_path, on_progress=cancel_at(2))
    with pytest.raises(ValueError, match="cannot be resumed: steps was 3 and is 4"):
        run(dataclasses.replace(cosine, steps=4), run_dir=tmp_path, resume=True)
    assert equal_layers(run(cosine, run_dir=tmp_path, resume=True), run(cosine))


def test_precision_names_a_type_and_auto_is_exact_on_a_cpu():
    cpu = torch.device("cpu")
    names = ("fp32", "bf16", "fp16", "auto")
    assert [autocast_dtype(name, cpu) for name in names] == [None, torch.bfloat16, torch.float16, None]


@pytest.mark.parametrize(("capability", "name"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_is_the_half_precision_that_a_gpu_has(monkeypatch, capability, name):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)  # there is no GPU
    cuda = torch.device("cuda", 1)
    assert named_precision("auto", cuda) == name
    assert named_precision("fp32", cuda) == "fp32"
    assert autocast_dtype("auto", cuda) == autocast_dtype(name, cuda)


def test_auto_trains_on_a_cpu_what_fp32_trains_and_goes_on_with_its_run(tmp_path):
    assert TrainConfig().precision == "auto"
    exact = dataclasses.replace(SMALL, precision="fp32")
    auto = run(dataclasses.replace(SMALL, steps=2, precision="auto"), run_dir=tmp_path)
    assert auto.config.precision == "fp32"
    assert equal_layers(run(exact, run_dir=tmp_path, resume=True), run(exact))


def test_a_state_that_says_auto_as_older_ones_do_is_resumed(tmp_path):
    run(dataclasses.replace(SMALL, steps=2), run_dir=tmp_path)
    state = checkpoint.load_newest(tmp_path / "state")
    state.values["settings"]["precision"] = "auto"
    checkpoint.save_state(tmp_path / "state", state)
    assert equal_layers(run(run_dir=tmp_path, resume=True), run())


def test_row_dropout_acts_on_objectives_made_for_merging_only():
    for objective, is_changed in (("alignguard", False), ("anchored", True)):
        one, other = (
            run(dataclasses.replace(SMALL, objective=objective, row_dropout=share)) for share in (0.0, 0.5)
        )
        assert equal_layers(one, other) != is_changed
