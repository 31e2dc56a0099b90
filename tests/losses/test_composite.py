"""The composite objective: alignguard where nothing is asked of it, soft labels and the focus by hand."""

import math

import pytest
import torch

from training.config import TrainConfig
from training.losses import LOSSES, resolved
from training.losses.alignguard import alignguard_loss
from training.losses.composite import composite_loss
from training.losses.errors import PairErrors

BETA = 4.0


def errors(num=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return PairErrors(*(torch.rand(4, num, generator=generator).requires_grad_()).unbind())


def exchanged(given):
    return PairErrors(given.loser, given.winner, given.ref_loser, given.ref_winner)


def logits(given):
    return BETA / 2 * given.margin


def test_without_labels_and_focus_it_is_alignguard_to_the_bit_with_its_gradient():
    ours, theirs = errors(), errors()
    loss, plain = composite_loss(ours, beta=BETA, focus=0.0), alignguard_loss(theirs, beta=BETA)
    assert torch.equal(loss, plain)
    assert torch.equal(
        *(torch.autograd.grad(part.sum(), given.winner)[0] for part, given in ((loss, ours), (plain, theirs)))
    )


@pytest.mark.parametrize("focus", [0.0, 1.0, 2.0])
def test_a_label_of_one_changes_nothing_and_a_label_of_zero_exchanges_winner_and_loser(focus):
    given = errors()
    hard = composite_loss(given, beta=BETA, focus=focus)
    torch.testing.assert_close(composite_loss(given, beta=BETA, focus=focus, labels=torch.ones(16)), hard)
    other = composite_loss(exchanged(given), beta=BETA, focus=focus)
    torch.testing.assert_close(composite_loss(given, beta=BETA, focus=focus, labels=torch.zeros(16)), other)


def test_a_label_between_is_the_cross_entropy_and_is_least_where_the_sigmoid_equals_it():
    given, label = errors(), 0.3
    loss = composite_loss(given, beta=BETA, labels=torch.full((16,), label))
    shares = logits(given).sigmoid()
    torch.testing.assert_close(loss, -label * shares.log() - (1 - label) * (1 - shares).log())
    winner = torch.tensor([0.0], requires_grad=True)
    at = PairErrors(
        winner, torch.zeros(1), torch.tensor([2 / BETA * math.log(label / (1 - label))]), torch.zeros(1)
    )
    (gradient,) = torch.autograd.grad(
        composite_loss(at, beta=BETA, labels=torch.tensor([label])).sum(), winner
    )
    assert gradient.item() == pytest.approx(0, abs=1e-6)


def test_the_focus_weighs_each_pair_by_how_wrong_it_is_and_has_no_gradient():
    given = errors()
    plain, focused = (composite_loss(given, beta=BETA, focus=focus) for focus in (0.0, 2.0))
    weights = (1 - logits(given).sigmoid()).detach() ** 2
    torch.testing.assert_close(focused, weights * plain)
    gradients = [
        torch.autograd.grad(loss.sum(), given.winner, retain_graph=True)[0] for loss in (plain, focused)
    ]
    torch.testing.assert_close(gradients[1], weights * gradients[0])


def test_an_untrained_pair_has_half_the_weight_to_the_power_of_the_focus():
    untrained = PairErrors(*torch.ones(4, 1))
    loss = composite_loss(untrained, beta=BETA, focus=3.0)
    assert loss.item() == pytest.approx(0.5**3 * math.log(2))


def test_a_negative_focus_is_refused():
    with pytest.raises(ValueError, match="focus must be at least 0, got -1"):
        composite_loss(errors(), beta=BETA, focus=-1.0)


def test_composite_relabels_by_itself_and_only_it_has_a_focus():
    assert resolved(TrainConfig(objective="composite")).pair_weighting == "relabel"
    assert resolved(TrainConfig(objective="composite", pair_weighting="soft")).pair_weighting == "soft"
    assert resolved(TrainConfig(objective="composite")).focus == TrainConfig.focus > 0
    for name in LOSSES.keys() - {"composite"}:
        config = resolved(TrainConfig(objective=name, beta=1.0))
        assert (config.pair_weighting, config.focus) == ("none", 0.0)
