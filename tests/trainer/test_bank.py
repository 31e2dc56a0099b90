"""The bank keeps the base model's errors on fixed draws: the same numbers, computed once."""

import dataclasses
import math
from unittest import mock

import pytest
import torch

from tiny import tiny_data, tiny_unet
from tiny_runs import SCHEDULE, SMALL, Cancel, cancel_at, equal_layers, run
from training.config import TrainConfig
from training.experts import adapter
from training.losses import LOSSES, resolved
from training.trainer.bank import Bank, ReferenceErrors
from training.trainer.batch import draw_batch, fetch_batch
from training.trainer.progress import Progress
from training.trainer.run import Run
from training.trainer.state import load_newest
from training.trainer.step import run_reference, take_step
from training.trainer.validation import Validation

BANKED = dataclasses.replace(SMALL, bank=2, steps=9, batch_size=4, flip=0.5, row_dropout=0.0)
DATA = tiny_data(mirrored=True)  # 6 pairs: four epochs in six steps
FORGETS = mock.patch.object(Bank, "keep")


def prepared(config):
    unet = tiny_unet()
    adapter.attach_adapter(unet, rank=config.rank, alpha=0, targets="attention", seed=0)
    return Run.of(unet, DATA, SCHEDULE, resolved(config))


def test_every_pair_meets_its_fixed_draws_in_turn():
    state = prepared(BANKED)
    met = {pair: [] for pair in range(6)}
    for step in range(9):
        draw = draw_batch(state, step)
        for pair, row in zip(draw.pairs.tolist(), draw.bank_rows.tolist(), strict=True):
            assert row // 2 == pair
            met[pair].append(row % 2)
    assert set(map(tuple, met.values())) == {(0, 1, 0, 1, 0, 1)}


def test_the_errors_of_a_pair_stand_in_one_row_and_convert_back():
    # rows of a batch: winners under the unsafe and the safe prompt, then losers, three pairs each
    errors = ReferenceErrors.of_rows(torch.arange(12.0), num_prompts=2)
    assert errors.by_pair.tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert errors.in_rows().tolist() == list(range(12))


def test_the_bank_keeps_the_first_errors_of_a_row_and_never_replaces_them():
    bank = Bank(3, 2, 1, torch.device("cpu"))
    bank.keep(torch.tensor([4, 1, 4]), torch.tensor([[1.0, 2], [3, 4], [5, 6]]))
    bank.keep(torch.tensor([1, 0]), torch.tensor([[7.0, 8], [9, 10]]))
    assert bank.read(torch.tensor([4, 1, 0])).by_pair.tolist() == [[1, 2], [3, 4], [9, 10]]
    assert bank.unknown(torch.tensor([0, 2, 4, 5])) == [1, 3]
    other = Bank(3, 2, 1, torch.device("cpu"))
    other.restore(bank.errors)
    assert other.unknown(torch.arange(6)) == bank.unknown(torch.arange(6)) == [2, 3, 5]
    assert len(other) == 3
    bank.forget_after(2)
    assert bank.unknown(torch.arange(6)) == [0, 2, 3, 5]
    assert bank.errors[0].isnan().all()


@pytest.mark.parametrize("objective", [name for name in LOSSES if name != "composite"])  # it needs costs
def test_errors_in_the_bank_equal_errors_that_are_computed_again(objective):
    state = prepared(dataclasses.replace(BANKED, objective=objective))
    progress = Progress(state)
    for _ in range(4):
        take_step(state, progress)
    draw = draw_batch(state, 8)
    assert len(progress.bank) == 12
    assert progress.bank.unknown(draw.bank_rows) == []
    batch = fetch_batch(state, draw)
    known = run_reference(state, progress.bank, draw, batch)
    empty_bank = Bank(6, 2, progress.bank.errors.shape[1] // 2, torch.device("cpu"))
    fresh = run_reference(state, empty_bank, draw, batch)
    assert known.errors.by_pair.min() > 0
    torch.testing.assert_close(known.errors, fresh.errors, rtol=1e-5, atol=0)  # fp32, another batch
    torch.testing.assert_close(known.kept, fresh.kept, rtol=0, atol=1e-5)


@pytest.mark.parametrize("objective", [name for name in LOSSES if name != "composite"])  # it needs costs
def test_training_with_the_bank_gives_the_weights_of_the_same_draws_without_it(objective):
    # plain descent in all but name: Adam divides by gradients that are near zero, and so magnifies rounding
    config = dataclasses.replace(BANKED, objective=objective, learning_rate=1e-4)
    banked = run(config, data=DATA)
    with FORGETS:
        anew = run(config, data=DATA)
    assert banked.losses == pytest.approx(anew.losses, rel=1e-4)
    for name, layer in anew.layers.items():
        torch.testing.assert_close(banked.layers[name].up, layer.up, rtol=0, atol=2e-5)
    assert "distance" not in banked.metrics  # of errors alone there is none
    assert not equal_layers(banked, run(dataclasses.replace(config, bank=0), data=DATA))


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ({"objective": "alignguard"}, [16, 16, 16, 0, 0]),  # 4 pairs, two pictures, two prompts
        ({"objective": "anchored", "anchor_weight": 0.0}, [24, 24, 24, 8, 8]),  # what is kept is drawn anew
        ({"objective": "duo"}, [12, 12, 12, 4, 4]),
    ],
)
def test_the_base_model_runs_only_on_rows_that_are_not_in_the_bank(options, rows):
    unet, sizes = tiny_unet(), []
    unet.register_forward_pre_hook(lambda module, args: sizes.append((torch.is_grad_enabled(), len(args[0]))))
    run(dataclasses.replace(BANKED, steps=5, **options), unet=unet, data=DATA)
    of_reference, policy, at = [], 0, 0
    for step in range(5):
        with_reference = rows[step] > 0
        if with_reference:
            of_reference.append(sizes[at])
        policy += sizes[at + with_reference][0]
        at += 1 + with_reference
    assert of_reference == [(False, size) for size in rows if size]
    assert policy == 5


def test_the_base_model_runs_without_the_known_pairs_of_a_micro_batch():
    unet, sizes = tiny_unet(), []
    unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    config = dataclasses.replace(BANKED, objective="alignguard", bank=1, steps=2)
    run(config, unet=unet, data=DATA)
    first, second = (draw_batch(prepared(config), step).pairs.tolist() for step in range(2))
    unknown = [pair for pair in second if pair not in first]  # one of them twice: the next epoch has begun
    assert len(set(unknown)) == 2 < len(second)
    assert sizes == [16, 16, 4 * len(unknown), 16]


def test_a_resumed_run_keeps_its_bank_and_ends_with_the_same_bytes(tmp_path):
    unbroken = run(BANKED, data=DATA, run_dir=tmp_path / "unbroken")
    with pytest.raises(Cancel):
        run(BANKED, data=DATA, run_dir=tmp_path / "broken", on_progress=cancel_at(4))
    resumed = run(BANKED, data=DATA, run_dir=tmp_path / "broken", resume=True)
    assert equal_layers(resumed, unbroken)
    assert resumed.losses == unbroken.losses
    banks = [load_newest(tmp_path / name / "state").tensors["bank"] for name in ("broken", "unbroken")]
    assert not banks[0].isnan().any()
    assert torch.equal(*banks)


@pytest.mark.parametrize("stop", [math.nan, Cancel])
def test_a_step_that_is_undone_leaves_nothing_in_the_bank(monkeypatch, tmp_path, stop):
    # neutral rows run with the pairs that are unknown, and rounding shows how many those were
    config = dataclasses.replace(BANKED, objective="anchored", validation=0.34, validate_every=1, steps=5)
    unbroken = run(config, data=DATA)
    measure, num_known = Validation.measure, {}

    def stopped(validation):
        num_known[validation.progress.step] = len(validation.progress.bank)
        if validation.progress.step != 2:
            return measure(validation)
        if stop is Cancel:
            raise Cancel
        return {"margin": math.nan}

    with monkeypatch.context() as patch:
        patch.setattr(Validation, "measure", stopped)
        with pytest.raises((Cancel, RuntimeError)):
            run(config, data=DATA, run_dir=tmp_path)
    state = load_newest(tmp_path / "state")
    assert state.step == 1
    assert (~state.tensors["bank"].isnan()).all(dim=1).sum() == num_known[1]
    resumed = run(config, data=DATA, run_dir=tmp_path, resume=True)
    assert equal_layers(resumed, unbroken)
    assert resumed.losses == unbroken.losses


def test_the_bank_is_refused_where_star_needs_predictions():
    data = dataclasses.replace(DATA, safety_gap=torch.tensor([0.4, math.nan, 1, 1, 1, 1]))
    with pytest.raises(ValueError, match="bank keeps errors, and pair_weighting star needs"):
        run(dataclasses.replace(BANKED, pair_weighting="star"), data=data)
    run(dataclasses.replace(BANKED, pair_weighting="filter", steps=1), data=data)


def test_without_a_bank_every_step_draws_anew():
    assert TrainConfig.bank == 0
    draw = draw_batch(prepared(dataclasses.replace(BANKED, bank=0)), 0)
    assert draw.bank_rows.tolist() == [-1] * 4
