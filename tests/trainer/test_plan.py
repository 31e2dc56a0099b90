"""The plan finds before the first step what fits into memory, and no result depends on it."""

import dataclasses

import pytest
import torch

from tiny import tiny_data, tiny_unet
from tiny_runs import SCHEDULE, SMALL, equal_layers, run
from training.experts import adapter
from training.losses import resolved
from training.models.network import set_checkpointing
from training.trainer.batch import draw_batch, fetch_batch, predict_batch
from training.trainer.needs import Needs
from training.trainer.plan import USABLE, Plan, free_bytes, pair_needs, place_unet, plan_run
from training.trainer.run import Run

CONFIG = resolved(dataclasses.replace(SMALL, batch_size=4, steps=2, beta=500.0))
PLENTY = 2**40


def new_run():
    unet = tiny_unet()
    adapter.attach_adapter(unet, rank=2, alpha=0, targets="attention", seed=0)
    return Run.of(unet, tiny_data(), SCHEDULE, CONFIG)


@pytest.fixture
def prepared():
    return new_run()


@pytest.fixture(scope="module")
def pair_bytes():
    """Return the bytes of one pair by mode, and the bytes that do not grow with the pairs."""
    state, needed = new_run(), {}
    for mode in ("none", "selective", "full"):
        set_checkpointing(state.unet, mode)
        needed[mode] = pair_needs(state).peak_bytes
    plan = plan_run(state, PLENTY)
    return needed, plan.peak_bytes - plan.weights_bytes - 4 * needed["none"]


def test_the_computed_bytes_are_those_that_the_graph_saves(prepared):
    saved = {}

    def keep(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            saved[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    batch = fetch_batch(prepared, draw_batch(prepared, 0).split(4)[0])
    weights = {weight.untyped_storage()._cdata for weight in prepared.unet.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        prediction = predict_batch(prepared, batch)
    saved_bytes = sum(size for key, size in saved.items() if key not in weights)
    prediction.sum().backward()
    # the peak is early in the backward pass: the saved bytes, and a few tensors of one block
    assert saved_bytes < pair_needs(prepared).peak_bytes < 1.3 * saved_bytes


def test_bytes_grow_with_the_rows_and_fall_with_checkpointing(prepared, pair_bytes):
    needed, _ = pair_bytes
    assert needed["full"] < needed["selective"] < needed["none"]
    one_prompt = dataclasses.replace(prepared, config=dataclasses.replace(CONFIG, safe_prompt_weight=0.0))
    set_checkpointing(prepared.unet, "none")
    # 4 rows of 6, two kept ones among them, and a little that does not grow with the rows
    assert 0.66 <= pair_needs(one_prompt).peak_bytes / needed["none"] < 0.72


def test_the_plan_takes_the_first_mode_that_fits_and_as_many_pairs_as_fit(prepared, pair_bytes):
    needed, fixed = pair_bytes

    def plan(mode, pairs):
        return plan_run(prepared, int((fixed + pairs * needed[mode]) / USABLE) + 1)

    assert plan_run(prepared, PLENTY)[:2] == (4, "none")
    assert plan("none", 2.5)[:2] == (2, "none")
    assert plan("none", 1)[:2] == (1, "none")
    assert plan("selective", 1)[:2] == (1, "selective")
    chosen = plan("full", 1)
    assert chosen[:2] == (1, "full")
    assert chosen.peak_bytes - chosen.weights_bytes <= USABLE * chosen.free_bytes
    assert prepared.unet.mid_block.gradient_checkpointing


def test_a_pair_that_does_not_fit_is_refused_with_the_numbers(prepared):
    with pytest.raises(RuntimeError, match=r"one pair needs \d+ MiB .* checkpointing full, and 1 MiB can be"):
        plan_run(prepared, 2**20)
    unet = prepared.unet
    with pytest.raises(RuntimeError, match="Lower resolution"):
        run(dataclasses.replace(CONFIG, checkpointing="none"), unet=unet, free_bytes=2**20)
    assert not hasattr(unet, "peft_config")  # it comes back as it was


def test_beta_is_measured_on_as_many_pairs_at_once_as_fit(prepared, pair_bytes):
    needed, fixed = pair_bytes
    adapter.detach_adapter(prepared.unet)
    sizes = []
    prepared.unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    free = int((fixed + needed["none"]) / USABLE) + 1
    run(dataclasses.replace(CONFIG, beta=0.0, steps=1), unet=prepared.unet, free_bytes=free)
    first_step = sizes.index(6)  # rows of one pair; what a pair needs was counted by `pair_bytes`
    assert set(sizes[:first_step]) == {1}


def test_needs_are_counted_once_for_equal_shapes_and_again_for_others(prepared, monkeypatch):
    first, counted = plan_run(prepared, PLENTY), []
    monkeypatch.setattr("training.trainer.needs.needs_of", lambda compute: counted.append(1) or Needs(1, 1))
    assert plan_run(prepared, PLENTY) == first
    assert not counted
    prepared.unet.conv_in.weight.requires_grad_(True)
    plan_run(prepared, PLENTY)
    assert counted


def test_a_mode_that_the_options_name_is_used(prepared):
    config = dataclasses.replace(CONFIG, checkpointing="full")
    assert plan_run(dataclasses.replace(prepared, config=config), PLENTY)[:2] == (4, "full")


def test_smaller_micro_batches_leave_the_effective_batch_as_it_is(pair_bytes):
    needed, fixed = pair_bytes
    whole = run(CONFIG)
    parts = run(CONFIG, free_bytes=int((fixed + 3 * needed["none"]) / USABLE) + 1)
    assert (whole.plan.micro_batch, parts.plan.micro_batch) == (4, 3)  # parts of 2 and 2
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)  # Adam divides by small gradients


def test_a_resumed_run_keeps_its_micro_batches_and_so_its_bytes(pair_bytes, tmp_path):
    needed, fixed = pair_bytes
    tight = int((fixed + 2 * needed["none"]) / USABLE) + 1
    unbroken = run(dataclasses.replace(CONFIG, steps=3), free_bytes=tight)
    run(CONFIG, run_dir=tmp_path, free_bytes=tight)
    resumed = run(dataclasses.replace(CONFIG, steps=3), run_dir=tmp_path, resume=True, free_bytes=PLENTY)
    assert resumed.plan.micro_batch == 2
    assert equal_layers(resumed, unbroken)


def test_training_starts_without_a_check_if_the_bytes_cannot_be_computed(prepared, monkeypatch, caplog):
    monkeypatch.setattr("training.trainer.needs.FakeTensorMode", None)
    prepared.unet.conv_out.weight.requires_grad_(True)  # no other test has counted this network
    assert plan_run(prepared, 1)[:2] == (4, "none")
    assert "could not compute the memory that training needs" in caplog.text


def test_the_plan_is_one_line_for_people():
    plan = Plan(2, "full", 2**30, 3 * 2**30, 7 * 2**30, 1, 600.0, "8 rows took 2.0 s")
    assert plan.text() == (
        "2 pairs at once, checkpointing full; 3.0 GiB expected of 8.0 GiB, 1.0 GiB of weights included; "
        "about 10 min expected (8 rows took 2.0 s)"
    )
    unknown = Plan(2, "none").text()
    assert unknown == "2 pairs at once, checkpointing none; memory not computed; time not measured"


def test_the_expected_peak_includes_the_weights_of_the_base_model_in_their_type(prepared, pair_bytes):
    num = sum(weight.numel() for weight in tiny_unet().parameters())
    whole = plan_run(prepared, PLENTY)
    assert whole.weights_bytes == 4 * num
    needed, fixed = pair_bytes
    assert whole.peak_bytes == 4 * num + fixed + 4 * needed["none"]
    for weight in prepared.unet.parameters():
        if not weight.requires_grad:
            weight.data = weight.data.bfloat16()
    assert plan_run(prepared, None).weights_bytes == 2 * num


def test_weights_that_do_not_fit_a_device_are_refused_before_they_are_moved(monkeypatch):
    unet = tiny_unet()
    num = sum(weight.numel() for weight in unet.parameters())
    free = int(2 * num / USABLE) + 1
    monkeypatch.setattr("training.trainer.plan.free_bytes", lambda device: free)
    with pytest.raises(RuntimeError, match="the weights of the UNet need .* can be used on meta. Set precis"):
        place_unet(unet, torch.device("meta"), None)
    assert unet.conv_in.weight.device.type == "cpu"
    placed = place_unet(unet, torch.device("meta"), torch.bfloat16)  # half of it fits
    assert (placed.conv_in.weight.device.type, placed.conv_in.weight.dtype) == ("meta", torch.bfloat16)


def test_free_memory_of_the_cpu_is_a_part_of_the_machines():
    import psutil

    assert 0 < free_bytes(torch.device("cpu")) <= psutil.virtual_memory().total
    assert free_bytes(torch.device("meta")) is None
