"""The expected time of a run: its rows times the time of one; timing rows leaves no trace in the result."""

import dataclasses
import itertools

import pytest
import torch

from tiny import tiny_data, tiny_unet
from tiny_runs import SCHEDULE, SMALL, equal_layers, metrics_of, run
from training.experts import adapter
from training.losses import resolved
from training.pairs.training_data import Bucket
from training.system.processes import Processes
from training.trainer import expected_time
from training.trainer.expected_time import rows_to_do, with_expected_time
from training.trainer.held_out import held_out
from training.trainer.needs import CountedOperations
from training.trainer.plan import plan_run
from training.trainer.progress import Progress
from training.trainer.run import Run
from training.trainer.step import take_step
from training.trainer.validation import Validation

PLENTY = 2**40
LONG = dataclasses.replace(SMALL, steps=200, batch_size=4, row_dropout=0.0)


def prepared(config=LONG, data=None, **options):
    unet = tiny_unet()
    adapter.attach_adapter(unet, rank=2, alpha=0, targets="attention", seed=0)
    state = Run.of(unet, data or tiny_data(), SCHEDULE, resolved(config), **options)
    return state, Progress(state)


def large_data(side=32):
    data = tiny_data(num_pairs=2)
    shape = (4, side, side)
    tables = {name: torch.randn(2, *shape) for name in ("winner", "loser")} | {
        "neutral": torch.randn(3, *shape)
    }
    return dataclasses.replace(data, **tables, buckets=(Bucket(shape, torch.arange(2), torch.arange(3)),))


def run_rows(unet, step):
    """Return how many rows a function runs, (with a backward pass, without one)."""
    counts = {True: 0, False: 0}

    def count(module, args):
        counts[torch.is_grad_enabled()] += len(args[0])

    handle = unet.register_forward_pre_hook(count)
    step()
    handle.remove()
    return counts[True], counts[False]


@pytest.mark.parametrize(
    "options",
    [{}, {"objective": "alignguard"}, {"objective": "duo"}, {"bank": 2}, {"grad_accumulation": 2}],
    ids=str,
)
def test_the_counted_rows_are_the_rows_that_a_run_takes(options):
    state, progress = prepared(dataclasses.replace(LONG, steps=6, **options))
    expected = rows_to_do(state, progress, 0)

    def all_steps():
        for _ in range(6):
            take_step(state, progress)

    assert run_rows(state.unet, all_steps) == expected
    assert rows_to_do(state, progress, 0) == (0, 0)


def test_measurements_on_held_out_pairs_are_counted():
    config = dataclasses.replace(LONG, steps=5, validation=0.34, validate_every=2)
    data, held = held_out(tiny_data(), 0.34, seed=3)
    state, progress = prepared(config, data)
    measured, unmeasured = rows_to_do(state, progress, 2), rows_to_do(state, progress, 0)
    assert measured.with_backward == unmeasured.with_backward
    validation = Validation(state, progress, held)

    def all_measurements():
        for _ in range(3):  # after steps 2, 4 and 5
            validation.measure()

    added = measured.without_backward - unmeasured.without_backward
    assert added == run_rows(state.unet, all_measurements)[1]


def test_each_process_counts_its_share():
    alone = rows_to_do(*prepared(), 0)
    assert rows_to_do(*prepared(processes=Processes(2, 1)), 0) == tuple(count / 2 for count in alone)


def test_the_time_of_some_rows_is_scaled_to_the_whole_run(monkeypatch):
    state, progress = prepared()
    ticks = itertools.count(0.0, 0.05)  # a pass takes 0.05 s, whatever it runs
    monkeypatch.setattr(expected_time.time, "perf_counter", lambda: next(ticks))
    plan = with_expected_time(plan_run(state, PLENTY), state, progress, ())
    # 200 steps of 24 rows, led by 8; at 0.1 s a row, 20 are run within the time for this
    assert plan.timed == "20 rows took 0.1 s"
    assert plan.expected_s == pytest.approx(200 * (24 + 24 + 8) / 20 * 0.05)


def test_slow_rows_are_timed_on_a_crop_and_scaled_by_their_operations(monkeypatch):
    state, progress = prepared(data=large_data())
    ticks = itertools.count(0.0, 0.3)
    monkeypatch.setattr(expected_time.time, "perf_counter", lambda: next(ticks))
    sizes = []
    state.unet.register_forward_pre_hook(lambda module, args: sizes.append(tuple(args[0].shape)))
    plan = plan_run(state, PLENTY)
    del sizes[:]
    plan = with_expected_time(plan, state, progress, ())
    assert sizes == [(1, 4, 8, 8)] * 2  # at 0.6 s, the next size is likely to take 2.4 s
    assert plan.timed == "one row at 1/4 of the size took 0.6 s"
    whole, part = plan.pair_operations / 6, operations_of_a_row(state, 8)
    assert plan.expected_s == pytest.approx(200 * (24 + 24 + 8) * 0.3 * whole / part, rel=1e-6)
    assert 16 < whole / part < 256  # of sixteen times the area; attention's grow with its square


def operations_of_a_row(state, side):
    inputs = torch.randn(1, 4, side, side), torch.tensor([10]), state.data.prompts.text_embeds[:1]
    with CountedOperations() as counted:
        state.unet(*inputs[:2], encoder_hidden_states=inputs[2]).sample.square().mean().backward()
    return counted.total


def test_timing_leaves_no_trace_in_the_result(tmp_path):
    config = dataclasses.replace(LONG, steps=60, batch_size=2, bank=2, validation=0.34)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    timed = run(config, run_dir=tmp_path / "timed", free_bytes=PLENTY)
    assert torch.equal(torch.get_rng_state(), before)
    assert timed.plan.expected_s > 0
    untimed = run(config, run_dir=tmp_path / "untimed")
    assert (untimed.plan.expected_s, untimed.plan.timed) == (None, "")
    assert equal_layers(timed, untimed)
    assert metrics_of(tmp_path / "timed") == metrics_of(tmp_path / "untimed")


def test_a_short_run_is_not_timed():
    state, progress = prepared(dataclasses.replace(LONG, steps=3))
    plan = plan_run(state, PLENTY)
    assert with_expected_time(plan, state, progress, ()) == plan
    assert "time not measured" in plan.text()


def test_the_plan_is_reported_before_the_first_step():
    reports = []
    run(SMALL, free_bytes=PLENTY, on_plan=reports.append, on_progress=lambda step, *_: reports.append(step))
    assert reports[0].micro_batch == 2
    assert reports[1:] == [1, 2, 3]
