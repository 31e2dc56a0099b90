"""Pair weights in the loss: 1 gives the plain loss, 0 keeps the base model; others are computed by hand."""

from dataclasses import replace

import pytest
import torch

from tiny import predict, random_layers, tiny_data, tiny_unet
from training.config import TrainConfig
from training.experts import adapter
from training.losses import LOSSES, resolved
from training.losses.terms import star_anchor
from training.models.conditioning import Conditioning
from training.models.noise import NoiseSchedule, squared_error
from training.trainer.bank import ReferenceErrors
from training.trainer.batch import Batch
from training.trainer.figures import Reference, batch_figures
from training.trainer.loop import train
from training.trainer.progress import Progress
from training.trainer.run import Run
from training.trainer.step import take_step

PAIRS = 2


def predictions(rows=4 * PAIRS + 3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, rows, 4, 2, 2, generator=generator).unbind()


def figures(weights, policy=None, **options):
    prediction, reference, target = predictions()
    batch = Batch(
        noisy=target,
        timesteps=torch.zeros(len(target), dtype=torch.int64),
        conditioning=Conditioning(torch.zeros(len(target), 1, 1)),
        target=target,
        num_pairs=PAIRS,
        num_rows=2 * PAIRS,
        weights=None if weights is None else torch.tensor(weights),
    )
    config = resolved(TrainConfig(**{"objective": "alignguard", "beta": 3.0, **options}))
    end = 4 * PAIRS
    errors = squared_error(reference[:end], target[:end])
    base = Reference(ReferenceErrors.of_rows(errors, 2), kept=reference[end:], pairs=reference[:end])
    return batch_figures(prediction if policy is None else policy, base, batch, config)


@pytest.mark.parametrize("objective", ["alignguard", "anchored"])
def test_weights_of_one_give_the_plain_loss(objective):
    plain = figures(None, objective=objective)
    assert figures([1.0, 1.0], objective=objective, pair_weighting="star")["loss"] == plain["loss"]
    assert figures([1.0, 1.0], objective=objective)["loss"] == plain["loss"]


def test_the_preference_is_the_mean_of_the_pairs_by_their_weights():
    first, second = (figures([a, 1 - a])["preference"] * 2 for a in (1.0, 0.0))
    mixed = figures([0.25, 0.5])["preference"]
    torch.testing.assert_close(mixed, (0.25 * first + 0.5 * second) / 2)


def test_the_star_anchor_of_a_pair_is_half_the_distances_of_both_its_images():
    policy, reference = torch.zeros(4, 1, 1, 1), torch.tensor([1.0, 2.0, 3.0, 4.0]).view(4, 1, 1, 1)
    weights = torch.tensor([0.5, 1.0])  # the second pair is fully trusted
    loss = star_anchor(policy, reference, weights, logit_scale=3.0)
    assert loss.item() == pytest.approx(3 * 0.5 * (1 + 9) / 2 / 2)


@pytest.mark.parametrize("beta", [3.0, 5000.0])
@pytest.mark.parametrize(("objective", "per_beta"), [("alignguard", 0.5), ("anchored", 0.5), ("duo", 1.0)])
def test_the_star_anchor_weighs_a_squared_distance_as_the_logit_weighs_a_squared_error(
    objective, per_beta, beta
):
    policy, reference, _ = predictions()
    distances = (policy - reference).square().mean(dim=(1, 2, 3))  # winners, then losers, each by prompt
    winners, losers = distances[:PAIRS], distances[2 * PAIRS : 3 * PAIRS]  # under the unsafe prompt
    expected = per_beta * beta * (0.75 * (winners[0] + losers[0]) / 2 + (winners[1] + losers[1]) / 2) / 2
    found = figures([0.25, 0.0], objective=objective, beta=beta, pair_weighting="star")["star_anchor"]
    torch.testing.assert_close(found, expected)


def test_pairs_of_weight_zero_have_no_gradient_at_the_base_model():
    _, reference, _ = predictions()
    policy = reference.clone().requires_grad_()
    figures([0.0, 0.0], policy=policy, pair_weighting="star")["loss"].backward()
    assert policy.grad.abs().max() == 0


@pytest.mark.parametrize("objective", LOSSES)
def test_training_on_distrusted_pairs_alone_returns_a_changed_adapter_to_the_base_model(objective):
    options = {"preserve_weight": 0.0, "row_dropout": 0.0, "pair_weighting": "star"}  # nothing else holds it
    config = TrainConfig(objective=objective, steps=20, batch_size=3, rank=3, learning_rate=2e-2, **options)
    unet = tiny_unet()
    base = predict(unet)
    adapter.attach_adapter(unet, rank=3, alpha=0, targets="attention", seed=0)
    adapter.load_adapter(unet, random_layers(tiny_unet()))
    data = replace(tiny_data(), safety_gap=torch.ones(6))
    run = Run.of(unet, data, NoiseSchedule.scaled_linear(), resolved(config, lambda: 500.0))
    run = replace(run, weights=torch.zeros(6))  # `train` refuses a run whose pairs are all distrusted
    progress = Progress(run)
    before = (predict(unet) - base).square().mean()
    for _ in range(config.steps):
        take_step(run, progress)
    assert progress.metrics["preference"] == 0
    assert (predict(unet) - base).square().mean() < before / 4


def trained(**options):
    unet, schedule = tiny_unet(), NoiseSchedule.scaled_linear()
    config = TrainConfig(
        steps=3, batch_size=2, objective="alignguard", precision="fp32", validation=0.0, **options
    )
    gaps = torch.tensor([0.9, 0.9, 0.9, -0.5, 0.9, 0.9])
    result = train(unet, replace(tiny_data(), safety_gap=gaps), schedule, config)
    adapter.detach_adapter(unet)
    return result


def test_every_pair_weighting_trains_another_expert():
    updates = {
        kind: torch.cat([layer.delta().flatten() for layer in trained(pair_weighting=kind).layers.values()])
        for kind in ("none", "filter", "star")
    }
    assert not torch.equal(updates["none"], updates["star"])
    assert not torch.equal(updates["none"], updates["filter"])
    assert not torch.equal(updates["star"], updates["filter"])


def test_composite_without_focus_is_alignguard_to_the_bit():
    plain = figures(None, safe_prompt_weight=1.0)
    ours = figures([1.0, 1.0], objective="composite", focus=0.0, safe_prompt_weight=1.0)
    assert ours["loss"] == plain["loss"]


def test_soft_labels_enter_the_loss_and_do_not_weigh_it_again():
    hard = figures([1.0, 1.0], objective="composite", focus=0.0)["loss"]
    soft = figures([1.0, 1.0], objective="composite", focus=0.0, pair_weighting="soft")["loss"]
    torch.testing.assert_close(soft, hard)
    either = [
        figures([q, q], objective="composite", focus=0.0, pair_weighting="soft")["loss"] for q in (0.0, 0.5)
    ]
    torch.testing.assert_close(either[1], (either[0] + hard) / 2)


def test_a_run_with_soft_labels_needs_the_objective_that_takes_them():
    data = replace(tiny_data(), cost_gap=torch.ones(6), quality_gap=None)
    config = TrainConfig(objective="alignguard", pair_weighting="soft", steps=1, validation=0.0)
    with pytest.raises(ValueError, match="soft needs an objective with soft labels, and alignguard has none"):
        train(tiny_unet(), data, NoiseSchedule.scaled_linear(), config)


@pytest.mark.parametrize("weighting", ["none", "soft"])
def test_a_composite_run_trains(weighting):
    data = replace(tiny_data(), cost_gap=torch.tensor([3.0, -3.0, 2.0, 1.0, 2.0, -1.0]))
    config = TrainConfig(objective="composite", pair_weighting=weighting, steps=2, batch_size=2, rank=2)
    result = train(tiny_unet(), data, NoiseSchedule.scaled_linear(), replace(config, validation=0.0))
    assert result.losses[0] == pytest.approx(0.5 * 0.6931, abs=1e-3) or weighting == "soft"
    assert all(layer.norm() > 0 for layer in result.layers.values())
