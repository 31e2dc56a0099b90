"""The objectives: known values, signs, and a plain textbook implementation to compare with."""

import math

import pytest
import torch

from training.config import TrainConfig
from training.losses import LOSSES, Objective, beta_convention, resolved
from training.losses.alignguard import alignguard_loss
from training.losses.duo import duo_loss
from training.losses.errors import PairErrors
from training.losses.terms import TERM_OPTIONS, preservation, safe_lead


def random_errors(num=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return PairErrors(*(0.1 + 1e-4 * torch.rand(4, num, generator=generator)))


def errors_of(winner, loser, ref_winner, ref_loser):
    return PairErrors(*(torch.tensor([float(value)]) for value in (winner, loser, ref_winner, ref_loser)))


FACTORS = {
    "alignguard": 0.5,
    "anchored": 0.5,
    "duo": 1.0,
    "composite": 0.5,
}  # of beta in the logit, where the loss is the plain -log sigmoid(logit)


def textbook_loss(errors, factor):
    """-log sigmoid(-factor [(e_w - ref_e_w) - (e_l - ref_e_l)]), arXiv:2311.12908, in Python's fp64."""
    rows = zip(*(part.tolist() for part in errors), strict=True)
    logits = [-factor * ((e_w - ref_w) - (e_l - ref_l)) for e_w, e_l, ref_w, ref_l in rows]
    return [math.log1p(math.exp(-logit)) for logit in logits]


@pytest.mark.parametrize("name", LOSSES)
def test_zero_adapter_gives_log_two(name):
    errors = random_errors()
    untouched = PairErrors(errors.winner, errors.loser, errors.winner, errors.loser)
    loss = LOSSES[name].loss(untouched, beta=5000.0)
    assert loss.shape == (64,)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, torch.full((64,), math.log(2)))  # exactly: fp32's nearest to log 2


@pytest.mark.parametrize(("name", "factor"), FACTORS.items())
def test_loss_equals_the_textbook(name, factor):
    errors = random_errors()
    loss = LOSSES[name].loss(errors, beta=5000.0)
    expected = torch.tensor(textbook_loss(errors, 5000.0 * factor))
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-4)  # 6e-9 rounding of 0.1, times 2500


def test_loss_by_hand():
    errors = errors_of(winner=0.25, loser=0.75, ref_winner=0.5, ref_loser=0.5)
    # the winner improved by 1/4, the loser got worse by 1/4: logit = beta / 2 * (1/4 + 1/4) = 1 at beta 4
    assert alignguard_loss(errors, beta=4.0).item() == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-6)


@pytest.mark.parametrize(("name", "factor"), FACTORS.items())
def test_swapping_winner_and_loser_negates_the_logit(name, factor):
    errors = random_errors()
    swapped = PairErrors(errors.loser, errors.winner, errors.ref_loser, errors.ref_winner)
    loss, other = (LOSSES[name].loss(e, beta=5000.0) for e in (errors, swapped))
    # loss = log(1 + exp(-z)) and other = log(1 + exp(z)), so their difference is z
    policy, reference = errors.winner - errors.loser, errors.ref_winner - errors.ref_loser
    logit = -5000 * factor * (policy - reference)
    torch.testing.assert_close(other - loss, logit, rtol=1e-4, atol=1e-5)


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


@pytest.mark.parametrize("beta", [100.0, 500.0, 2000.0])
def test_duos_beta_is_half_of_alignguards(beta):
    errors = random_errors()
    assert torch.equal(duo_loss(errors, beta=beta), alignguard_loss(errors, beta=2 * beta))


@pytest.mark.parametrize("beta", [0.0, -1.0])
@pytest.mark.parametrize("name", LOSSES)
def test_a_beta_of_zero_or_below_is_refused(name, beta):
    with pytest.raises(ValueError, match=f"beta must be positive, got {beta}"):
        LOSSES[name].loss(random_errors(), beta=beta)


def test_the_safe_lead_is_the_weighted_squared_distance_to_its_target():
    prediction = torch.tensor([[[[1.0, 3.0]]], [[[4.0, 0.0]]]])
    for weights, expected in (((1.0, 1.0), (5.0 + 8.0) / 2), ((0.5, 0.0), 5.0 / 4)):
        led = safe_lead(prediction, torch.zeros_like(prediction), torch.tensor(weights))
        assert led.item() == expected


def test_preservation_is_the_squared_distance_to_the_reference():
    prediction = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]])
    assert preservation(prediction, torch.zeros_like(prediction)).item() == 1.25
    assert preservation(prediction, prediction).item() == 0.0


def test_alignguard_has_no_extra_term_and_the_beta_of_the_paper():
    paper = resolved(TrainConfig(objective="alignguard"))
    assert (paper.beta, paper.prompts, paper.caption_dropout) == (5000, "pair", 0.2)
    assert paper.anchor_weight == paper.preserve_weight == paper.row_dropout == 0
    assert list(LOSSES)[:3] == ["alignguard", "anchored", "duo"]  # saved graphs rely on the order


def test_an_objective_has_its_default_weights_until_they_are_set():
    unset = resolved(TrainConfig(objective="anchored"), lambda: 500.0)
    assert (unset.beta, unset.anchor_weight, unset.preserve_weight) == (500, 100, 300)
    assert (unset.safe_prompt_weight, unset.row_dropout) == (0, 0)
    off = resolved(TrainConfig(objective="anchored", beta=500.0, anchor_weight=0.0, preserve_weight=7.0))
    assert (off.anchor_weight, off.preserve_weight) == (0, 7)
    kept = resolved(TrainConfig(objective="alignguard", anchor_weight=3.0, preserve_weight=7.0))
    assert (kept.anchor_weight, kept.preserve_weight) == (0, 7)  # the paper has no anchor to weigh


@pytest.mark.parametrize(("beta", "weight"), [(0.0, 5e6), (500.0, 5e6), (1000.0, 1e7)])
def test_duos_output_preservation_grows_with_its_beta_as_published(beta, weight):
    # base_lambda 1e6 times beta / 100: 5e6 for nudity (500), 1e7 for violence (1000)
    assert resolved(TrainConfig(objective="duo", beta=beta)).preserve_weight == weight


def test_under_the_empty_prompt_every_caption_is_dropped_and_there_is_no_safe_row():
    for config in (
        TrainConfig(objective="duo"),
        TrainConfig(objective="anchored", prompts="empty", beta=1.0),
    ):
        empty = resolved(config)
        assert (empty.prompts, empty.caption_dropout, empty.safe_prompt_weight) == ("empty", 1, 0)
    given = resolved(TrainConfig(objective="duo", prompts="pair"))
    assert (given.prompts, given.caption_dropout, given.safe_prompt_weight) == ("pair", 0.2, 1)


@pytest.mark.parametrize("objective", LOSSES)
def test_resolving_twice_changes_nothing(objective):
    once = resolved(TrainConfig(objective=objective), lambda: 1e3)
    assert resolved(once) == once


def test_a_measured_beta_needs_pairs():
    with pytest.raises(ValueError, match="the beta of anchored is measured on pairs, and there are none"):
        resolved(TrainConfig(objective="anchored"))


def test_beta_is_named_in_both_conventions():
    paper, duo = (beta_convention(resolved(TrainConfig(objective=name))) for name in ("alignguard", "duo"))
    assert "as AlignGuard" in paper
    assert paper.endswith("in DUO and diffusers' SD 1.5 script this is 2500")
    assert "as DUO" in duo
    assert duo.endswith("in AlignGuard this is 1000")


def test_an_unknown_objective_is_named_with_the_known_ones():
    message = f"objective must be one of {', '.join(LOSSES)}, got 'no objective'"
    with pytest.raises(ValueError, match=message):
        resolved(TrainConfig(objective="no objective"))


def test_a_term_the_trainer_cannot_compute_is_refused():
    with pytest.raises(ValueError, match=f"among {', '.join(TERM_OPTIONS)}, got magic"):
        Objective(alignguard_loss, 1.0, {"magic": 1.0}, "nowhere")


def test_two_terms_behind_one_option_are_refused():
    terms = {"preservation": 1.0, "output_preservation": 1.0}
    with pytest.raises(ValueError, match="every term needs its own option, got preservation, output_"):
        Objective(alignguard_loss, 1.0, terms, "nowhere")
