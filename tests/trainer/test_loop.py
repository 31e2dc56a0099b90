"""The training loop on a tiny UNet: exact at the start, repeatable, and followed by its caller."""

import dataclasses

import pytest
import torch

from tiny import predict, tiny_data, tiny_unet
from tiny_runs import SMALL, Cancel, cancel_at, equal_layers, metrics_of, run
from training.losses import LOSSES
from training.models.noise import NoiseSchedule
from training.trainer.state import load_newest


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("objective", [name for name in LOSSES if name != "composite"])  # it needs costs
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
    assert not {"safe_lead", "preservation"} & paper.keys()
    anchored = run(dataclasses.replace(SMALL, objective="anchored")).metrics
    parts = anchored["preference"] + anchored["safe_lead"] + anchored["preservation"]
    assert anchored["loss"] == pytest.approx(parts, rel=1e-6)


@pytest.mark.parametrize("objective", [name for name in LOSSES if name != "composite"])  # it needs costs
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
    assert calls == [("reference", False), ("reference", False), ("policy", True)] * 2


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        ({"objective": "alignguard"}, [8, 8]),  # 2 pairs, winner and loser, two prompts
        ({"objective": "alignguard", "safe_prompt_weight": 0.0}, [4, 4]),
        ({"objective": "anchored"}, [12, 4, 12]),  # and two rows to keep for each; led by 4 rows
        ({"objective": "anchored", "safe_prompt_weight": -1.0}, [8, 4, 8]),
        ({"objective": "anchored", "preserve_weight": 0.0}, [8, 4, 8]),
        ({"objective": "anchored", "anchor_weight": 0.0}, [12, 12]),
        ({"objective": "alignguard", "preserve_weight": 1.0}, [12, 12]),
        ({"objective": "duo"}, [6, 6]),  # 2 pairs under the empty prompt, and as many of pure noise
        ({"objective": "duo", "preserve_weight": 0.0}, [4, 4]),
        ({"objective": "duo", "prompts": "pair"}, [10, 10]),
    ],
)
def test_only_rows_with_a_weight_above_zero_are_run(change, rows):
    unet, sizes = tiny_unet(), []
    unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    run(dataclasses.replace(SMALL, steps=1, **change), unet=unet)
    assert sizes == rows


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


def test_a_cancel_stops_within_one_step_and_keeps_the_state(tmp_path):
    kept = []
    with pytest.raises(Cancel):
        run(on_progress=cancel_at(2), on_stop=kept.append, run_dir=tmp_path)
    assert load_newest(tmp_path / "state").step == 2
    assert len(metrics_of(tmp_path)) == 2
    (result,) = kept
    assert (result.steps_done, result.cancelled, len(result.losses)) == (2, True, 2)
    assert equal_layers(result, run(dataclasses.replace(SMALL, steps=2)))


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
    assert kept[0].steps_done == load_newest(tmp_path / "state").step == 2
    whole = run(dataclasses.replace(SMALL, batch_size=1, grad_accumulation=2, steps=2))
    assert equal_layers(kept[0], whole)


def test_training_works_inside_no_grad():
    with torch.no_grad():
        assert equal_layers(run(), run())


def test_row_dropout_acts_on_objectives_made_for_merging_only():
    for objective, is_changed in (("alignguard", False), ("anchored", True)):
        one, other = (
            run(dataclasses.replace(SMALL, objective=objective, row_dropout=share)) for share in (0.0, 0.5)
        )
        assert equal_layers(one, other) != is_changed
