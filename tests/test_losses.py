"""The objectives: known values, signs, and a plain textbook implementation beside them."""

import math

import pytest
import torch

from training.losses import LOSSES, TERMS, Objective
from training.losses.alignguard import alignguard_loss
from training.losses.anchored import preservation, winner_anchor
from training.preference import PairErrors


def random_errors(num=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return PairErrors(*(0.1 + 1e-4 * torch.rand(4, num, generator=generator)))


def errors_of(winner, loser, ref_winner, ref_loser):
    return PairErrors(*(torch.tensor([float(value)]) for value in (winner, loser, ref_winner, ref_loser)))


def textbook_loss(errors, beta):
    """-log sigmoid(-beta/2 [(e_w - ref_e_w) - (e_l - ref_e_l)]), arXiv:2311.12908, in Python's fp64."""
    rows = zip(*(part.tolist() for part in errors), strict=True)
    logits = [-beta / 2 * ((e_w - ref_w) - (e_l - ref_l)) for e_w, e_l, ref_w, ref_l in rows]
    return [math.log1p(math.exp(-logit)) for logit in logits]


@pytest.mark.parametrize("name", LOSSES)
def test_zero_adapter_gives_log_two(name):
    errors = random_errors()
    untouched = PairErrors(errors.winner, errors.loser, errors.winner, errors.loser)
    loss = LOSSES[name].loss(untouched, beta=5000.0)
    assert loss.shape == (64,)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, torch.full((64,), math.log(2)))  # exactly: fp32's nearest to log 2


@pytest.mark.parametrize("name", LOSSES)
def test_loss_equals_the_textbook(name):
    errors = random_errors()
    loss = LOSSES[name].loss(errors, beta=5000.0)
    expected = torch.tensor(textbook_loss(errors, 5000.0))
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-4)  # 6e-9 rounding of 0.1, times 2500


def test_loss_by_hand():
    errors = errors_of(winner=0.25, loser=0.75, ref_winner=0.5, ref_loser=0.5)
    # the winner improved by 1/4, the loser got worse by 1/4: logit = beta / 2 * (1/4 + 1/4) = 1 at beta 4
    assert alignguard_loss(errors, beta=4.0).item() == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_swapping_winner_and_loser_negates_the_logit(name):
    errors = random_errors()
    swapped = PairErrors(errors.loser, errors.winner, errors.ref_loser, errors.ref_winner)
    loss, other = (LOSSES[name].loss(e, beta=5000.0) for e in (errors, swapped))
    # loss = log(1 + exp(-z)) and other = log(1 + exp(z)), so their difference is z
    policy, reference = errors.winner - errors.loser, errors.ref_winner - errors.ref_loser
    torch.testing.assert_close(other - loss, -2500 * (policy - reference), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_falls_as_the_margin_grows(name):
    errors = [errors_of(0.5 - margin, 0.5, 0.5, 0.5) for margin in (-0.2, -0.1, 0.0, 0.1, 0.2)]
    losses = [LOSSES[name].loss(e, beta=10.0).item() for e in errors]
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == 5


def test_gradients_push_the_winners_error_down_and_the_losers_up():
    errors = PairErrors(*(part.requires_grad_() for part in errors_of(0.5, 0.5, 0.5, 0.5)))
    alignguard_loss(errors, beta=8.0).sum().backward()
    assert errors.winner.grad.item() == 2.0  # beta / 2 * sigmoid(0)
    assert errors.loser.grad.item() == -2.0


def test_beta_is_twice_that_of_diffusers_sd15_script():
    errors = random_errors()
    # examples/research_projects/diffusion_dpo/train_diffusion_dpo.py: sigmoid(beta * (ref_diff - model_diff))
    model_diff, ref_diff = errors.winner - errors.loser, errors.ref_winner - errors.ref_loser
    theirs = -torch.nn.functional.logsigmoid(2500 * (ref_diff - model_diff))
    torch.testing.assert_close(alignguard_loss(errors, beta=5000.0), theirs)


@pytest.mark.parametrize("beta", [0.0, -1.0])
@pytest.mark.parametrize("name", LOSSES)
def test_a_beta_that_pulls_nowhere_is_refused(name, beta):
    with pytest.raises(ValueError, match=f"beta must be positive, got {beta}"):
        LOSSES[name].loss(random_errors(), beta=beta)


def test_winner_anchor_is_the_mean_error_of_the_winners():
    errors = PairErrors(torch.tensor([1.0, 3.0]), *(torch.full((2,), 9.0) for _ in range(3)))
    assert winner_anchor(errors).item() == 2.0


def test_preservation_is_the_squared_distance_to_the_reference():
    prediction = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]])
    assert preservation(prediction, torch.zeros_like(prediction)).item() == 1.25
    assert preservation(prediction, prediction).item() == 0.0


def test_the_paper_declares_no_terms_and_keeps_its_beta():
    assert LOSSES["alignguard"].terms == ()
    assert LOSSES["alignguard"].beta == 5000
    assert list(LOSSES)[:2] == ["alignguard", "anchored"]  # saved graphs rely on the order


def test_a_term_the_trainer_cannot_compute_is_refused():
    with pytest.raises(ValueError, match=f"out of {', '.join(TERMS)}, got magic"):
        Objective(alignguard_loss, 1.0, ("magic",), "nowhere")
