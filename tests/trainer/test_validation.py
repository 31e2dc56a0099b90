"""Held-out pairs: never trained on, measured on the same draws every time, and a reason to stop."""

import dataclasses
import json
import math

import pytest
import torch

from tiny import random_layers, tiny_data, tiny_unet
from tiny_runs import (
    SCHEDULE,
    SMALL,
    Cancel,
    broken_after,
    cancel_at,
    equal_layers,
    metrics_of,
    run,
    two_buckets,
)
from training.experts import adapter
from training.losses import LOSSES, resolved
from training.losses.errors import pair_errors
from training.models.noise import squared_error
from training.system.processes import Processes
from training.trainer.held_out import MOST, held_out
from training.trainer.progress import Progress
from training.trainer.run import Run
from training.trainer.state import load_newest
from training.trainer.validation import FIGURES, Validation, held_out_draws

HELD = dataclasses.replace(SMALL, validation=0.34, validate_every=1)


def parted(data, share=HELD.validation, seed=HELD.seed, **options):
    trained, held = held_out(data, share, seed=seed, **options)
    return trained, torch.cat([bucket.pairs for bucket in held])


def pairs_of(data):
    return sorted(torch.cat([bucket.pairs for bucket in data.buckets]).tolist())


def test_the_seed_decides_which_pairs_are_held_out_and_none_is_on_both_sides():
    data = tiny_data(num_pairs=6)
    trained, held = parted(data)
    assert sorted(pairs_of(trained) + held.tolist()) == list(range(6))
    assert len(held) == 2
    assert torch.equal(parted(data)[1], held)
    assert len({tuple(parted(data, seed=seed)[1].tolist()) for seed in range(9)}) > 1
    assert held_out(data, 0.0, seed=3) == (data, ())
    assert len(parted(tiny_data(num_pairs=200), 0.5)[1]) == MOST


@pytest.mark.parametrize(("num_pairs", "share"), [(1, 0.5), (4, 0.1)])
def test_few_pairs_are_all_trained_on_unless_the_run_depends_on_held_out_ones(num_pairs, share):
    data = tiny_data(num_pairs=num_pairs)
    assert held_out(data, share, seed=3) == (data, ())
    config = dataclasses.replace(SMALL, validation=share)
    assert run(config, data=data).validation is None
    expected = f"patience needs held-out pairs to watch.*none of the {num_pairs} of {num_pairs}"
    with pytest.raises(ValueError, match=expected):
        run(dataclasses.replace(config, patience=2), data=data)


def test_only_pairs_that_a_judge_trusts_are_held_out_where_pairs_are_weighed():
    gaps = torch.tensor([0.9, -0.5, 0.9, -0.5, 0.2, math.nan])
    wrong = torch.tensor([False, False, True, False, False, False])
    data = dataclasses.replace(tiny_data(), safety_gap=gaps, judged_wrong=wrong)
    held = {tuple(parted(data, 0.5, seed=seed, trusted_only=True)[1].tolist()) for seed in range(9)}
    assert held == {(0,), (5,)}


@pytest.mark.parametrize("weighting", ["filter", "star"])
def test_a_trusted_pair_is_left_to_train_on_however_large_the_share(weighting):
    gaps = torch.tensor([0.9, 0.9, 0.9, -0.5, -0.5, -0.5])
    data = dataclasses.replace(tiny_data(), safety_gap=gaps)
    config = dataclasses.replace(HELD, pair_weighting=weighting, validation=0.5, steps=6)
    assert len(parted(data, 0.5, trusted_only=True)[1]) == 2
    assert any(run(config, data=data).losses)
    gaps[1:3] = -0.5
    assert held_out(data, 0.5, seed=3, trusted_only=True) == (data, ())


def test_a_held_out_pair_is_not_a_neutral_image_either(tmp_path):
    data = two_buckets(tmp_path)  # without neutral images: the safe ones stand in for them
    trained, held = parted(data)
    left = torch.cat([bucket.neutral for bucket in trained.buckets])
    assert sorted(data.neutral_pair[left].tolist()) == pairs_of(trained)
    assert not set(held.tolist()) & set(pairs_of(trained))


@pytest.mark.parametrize("objective", [name for name in LOSSES if name != "composite"])  # it needs costs
def test_a_held_out_pair_never_enters_a_gradient(objective):
    data, changed = tiny_data(), tiny_data()
    _, held = parted(data)
    for table in (changed.winner, changed.loser):
        table[held] = 0.0
    config = dataclasses.replace(HELD, objective=objective, steps=6, beta=0.0)  # nor into a measured beta
    one, other = run(config, data=data), run(config, data=changed)
    assert equal_layers(one, other)
    assert one.validations != other.validations


def test_measuring_changes_nothing_of_the_training():
    data = tiny_data()
    trained, _ = parted(data)
    assert equal_layers(run(HELD, data=data), run(SMALL, data=trained))


def trained_run(config=HELD, data=None):
    unet = tiny_unet()
    adapter.attach_adapter(unet, rank=3, alpha=0, targets="attention", seed=0)
    adapter.load_adapter(unet, random_layers(unet))
    return Run.of(unet, data or tiny_data(), SCHEDULE, resolved(config))


def test_the_figures_are_means_over_single_draws():
    state = trained_run(dataclasses.replace(HELD, row_dropout=0.9))
    _, held = held_out(state.data, 0.34, seed=3)
    figures = Validation(state, Progress(state), held).measure()
    margins, distances = [], []
    pairs, draws = held_out_draws(dataclasses.replace(state, micro_batch=100), held[0])[0]
    assert sorted(draws.timesteps[:4] // 250) == [0, 1, 2, 3]
    for at, pair in enumerate(pairs):
        for prompt in (state.data.unsafe_prompt[pair], state.data.safe_prompt[pair]):
            text = state.data.prompts.text_embeds[prompt][None]
            policy, reference = [], []
            for latents in (state.data.winner[pair], state.data.loser[pair]):
                noisy = SCHEDULE.add_noise(latents[None], draws.noise[at][None], draws.timesteps[at][None])
                inputs = noisy, draws.timesteps[at][None]
                with torch.no_grad():
                    policy.append(state.unet(*inputs, encoder_hidden_states=text).sample)
                    with adapter.reference(state.unet):
                        reference.append(state.unet(*inputs, encoder_hidden_states=text).sample)
            policy, reference = torch.cat(policy), torch.cat(reference)
            target = draws.noise[at][None].expand(2, -1, -1, -1)
            errors = pair_errors(squared_error(policy, target), squared_error(reference, target))
            margins.append(((errors.ref_winner - errors.winner) - (errors.ref_loser - errors.loser)).item())
            distances.append((policy - reference).square().mean().item())
    assert figures["margin"] == pytest.approx(sum(margins) / 16, rel=1e-3, abs=1e-5)
    assert figures["implicit_accuracy"] == sum(margin > 0 for margin in margins) / 16
    assert figures["distance"] == pytest.approx(sum(distances) / 16, rel=1e-4)


def test_the_figures_do_not_depend_on_the_micro_batch_and_the_base_model_runs_once():
    state, measurements = trained_run(), []
    _, held = held_out(state.data, 0.34, seed=3)
    off = []
    layer = next(module for module in state.unet.modules() if hasattr(module, "lora_A"))
    state.unet.register_forward_pre_hook(lambda *_: off.append(layer.disable_adapters))
    for micro_batch in (8, 3):
        validation = Validation(dataclasses.replace(state, micro_batch=micro_batch), Progress(state), held)
        measurements += [validation.measure(), validation.measure()]
    assert measurements[0] == measurements[1]
    assert measurements[0] == pytest.approx(measurements[2], rel=1e-3)
    assert off == [True, False, False] + [True, False] * 3 + [False] * 3


@pytest.mark.parametrize("micro_batches", [(4, 1), (3, 8, 2), (1,) * 9])  # of 8 draws: the last has none
def test_processes_with_unequal_memory_measure_what_one_measures(monkeypatch, micro_batches):
    state = trained_run()
    _, held = held_out(state.data, 0.34, seed=3)
    alone = Validation(state, Progress(state), held).measure()
    shares = []
    monkeypatch.setattr(Processes, "add_up", lambda self, tensors: shares.append(tensors[0].clone()))
    for number, micro_batch in enumerate(micro_batches):
        processes = Processes(len(micro_batches), number)
        part = dataclasses.replace(state, processes=processes, micro_batch=micro_batch)
        Validation(part, Progress(part), held).measure()
    assert dict(zip(FIGURES, sum(shares).tolist(), strict=True)) == pytest.approx(alone, rel=1e-3)


def test_held_out_pairs_are_measured_at_the_interval_and_at_the_end(tmp_path):
    result = run(dataclasses.replace(HELD, validate_every=2), run_dir=tmp_path)
    lines = metrics_of(tmp_path)
    assert ["validation_margin" in line for line in lines] == [False, True, True]
    assert result.validation == {"step": 3, **{name: lines[-1][f"validation_{name}"] for name in FIGURES}}
    assert all(line["validation_distance"] > 0 for line in lines[1:])
    assert "after step 3" in result.validation_text()
    assert run().validation is None
    assert run().validation_text() == "not measured"


def with_margins(monkeypatch, margins):
    """Replace the measured margins by these, one per step."""

    def measure(validation):
        return {**dict.fromkeys(FIGURES, 0.0), "margin": margins[validation.progress.step - 1]}

    monkeypatch.setattr(Validation, "measure", measure)


STOPPING = dataclasses.replace(HELD, steps=9, patience=2)
MARGINS = [0.1, 0.3, 0.2, 0.3, 0.4, 0.5, 0.6]


def test_training_ends_when_the_margin_stops_growing_and_keeps_the_best(monkeypatch, tmp_path):
    with_margins(monkeypatch, MARGINS)
    result = run(STOPPING, run_dir=tmp_path)
    assert (result.steps_done, len(result.losses), result.cancelled) == (2, 4, False)
    assert equal_layers(result, run(dataclasses.replace(HELD, steps=2)))
    assert result.metrics["step"] == result.validation["step"] == 2
    assert "the margin grew no further in the 4 steps taken" in result.validation_text()
    again = run(STOPPING, run_dir=tmp_path, resume=True)  # nothing is left to do
    assert equal_layers(again, result)
    assert (again.steps_done, again.validations) == (2, result.validations)


def test_without_patience_the_last_step_is_kept(monkeypatch):
    with_margins(monkeypatch, MARGINS)
    result = run(dataclasses.replace(STOPPING, patience=0, steps=4))
    assert (result.steps_done, result.validation["step"]) == (4, 4)


@pytest.mark.parametrize("stop_at", [1, 3])
def test_a_resumed_run_keeps_its_best(monkeypatch, tmp_path, stop_at):
    with_margins(monkeypatch, MARGINS)
    unbroken = run(STOPPING)
    with pytest.raises(Cancel):
        run(STOPPING, run_dir=tmp_path, on_progress=cancel_at(stop_at))
    resumed = run(STOPPING, run_dir=tmp_path, resume=True)
    assert equal_layers(resumed, unbroken)
    assert (resumed.steps_done, resumed.validations) == (unbroken.steps_done, unbroken.validations)


def test_a_cancel_while_measuring_makes_the_step_be_repeated(tmp_path):
    asked = []

    def check():
        asked.append(True)
        if len(asked) == 4:  # a step, its measurement, a step, its measurement
            raise Cancel

    config = dataclasses.replace(HELD, batch_size=2)
    data = tiny_data(num_pairs=3)  # one pair held out: four draws, two at once
    unbroken = run(config, data=data, run_dir=tmp_path / "unbroken")
    with pytest.raises(Cancel):
        run(config, data=data, run_dir=tmp_path / "broken", check_cancel=check)
    state = load_newest(tmp_path / "broken" / "state")
    assert state is None or state.step < 2
    resumed = run(config, data=data, run_dir=tmp_path / "broken", resume=True)
    assert equal_layers(resumed, unbroken)
    assert metrics_of(tmp_path / "broken") == metrics_of(tmp_path / "unbroken")
    assert json.dumps(resumed.validations) == json.dumps(unbroken.validations)


@pytest.mark.parametrize("at", [0, 2, 3])
def test_a_margin_that_is_not_finite_goes_back_to_the_last_good_state(monkeypatch, tmp_path, at):
    margins = [0.1, 0.3, 0.2, 0.4]
    margins[at] = math.nan
    with_margins(monkeypatch, margins)
    kept = []
    with pytest.raises(
        RuntimeError, match=rf"validation_margin is not finite \(nan\) in step {at + 1}\. .* step {at}\. "
    ):
        run(dataclasses.replace(STOPPING, steps=4), run_dir=tmp_path, on_stop=kept.append)
    if at == 0:
        assert kept == []
        return
    assert kept[0].steps_done == kept[0].validation["step"] == len(metrics_of(tmp_path)) == at
    assert equal_layers(kept[0], run(dataclasses.replace(HELD, steps=at)))
    assert all(math.isfinite(line["validation_margin"]) for line in metrics_of(tmp_path))


def test_a_best_step_followed_by_an_infinite_loss_is_replaced_by_the_best_before(monkeypatch, tmp_path):
    with_margins(monkeypatch, [0.0, 5.0, 0.0, 9.0])
    config = dataclasses.replace(STOPPING, steps=6, validate_every=2)
    data, report = broken_after(4)
    with pytest.raises(RuntimeError, match="loss is not finite .* in step 5. The adapter .* back to step 3"):
        run(config, data=data, run_dir=tmp_path, on_progress=report)
    with_margins(monkeypatch, [0.0, 5.0, 0.0, 4.0, 0.0, 1.0])
    resumed = run(config, data=tiny_data(num_pairs=2), run_dir=tmp_path, resume=True)
    assert resumed.steps_done == resumed.validation["step"] == 2
    assert equal_layers(resumed, run(dataclasses.replace(HELD, steps=2), data=tiny_data(num_pairs=2)))
