"""What the trials of training compare: every change is one change, and candidates say what they claim."""

from dataclasses import asdict

import pytest
import torch

import efficacy
import objectives
from mini_lab import RECIPE
from training.losses import LOSSES
from training.losses.alignguard import alignguard_loss
from training.losses.errors import PairErrors

ERRORS = PairErrors(*torch.rand(4, 6, generator=torch.Generator().manual_seed(0)))
BETA = 10.0


def test_dpo_positive_is_the_papers_loss_where_no_winner_got_worse():
    better = ERRORS._replace(winner=ERRORS.ref_winner * 0.9)
    assert torch.equal(objectives.dpo_positive_loss(better, beta=BETA), alignguard_loss(better, beta=BETA))


def test_dpo_positive_costs_more_where_a_winner_got_worse_though_the_loser_got_worse_still():
    worse = ERRORS._replace(winner=ERRORS.ref_winner + 0.1, loser=ERRORS.ref_loser + 0.3)
    assert (objectives.dpo_positive_loss(worse, beta=BETA) > alignguard_loss(worse, beta=BETA)).all()


def test_pairs_weigh_as_their_images_part_to_the_base_model():
    gap = (ERRORS.ref_winner - ERRORS.ref_loser).abs()
    weights = objectives.parted_loss(ERRORS, beta=BETA) / alignguard_loss(ERRORS, beta=BETA)
    assert weights.mean() == pytest.approx(1)
    torch.testing.assert_close(weights / weights[0], gap / gap[0])


def test_candidates_are_known_only_while_one_is_trained(monkeypatch):
    known = dict(LOSSES)
    monkeypatch.setattr(objectives, "trial", lambda *_: {"ip": float(len(LOSSES))})
    found = objectives.candidate_trial("row", ("violence",), RECIPE, 0)
    assert found == {"ip": len(known) + len(objectives.CANDIDATES)}
    assert known == LOSSES


@pytest.mark.parametrize("option", efficacy.SWEEPS)
def test_a_sweep_changes_its_option_alone_and_has_the_value_of_the_recipe(option):
    rows, own = efficacy.choices(), asdict(RECIPE)
    for value in efficacy.SWEEPS[option]:
        changed = dict(asdict(rows[efficacy.row_of(option, value)]).items() - own.items())
        assert changed in ({option: value}, {})
    assert option == "beta" or own[option] in efficacy.SWEEPS[option]  # beta is measured by default


@pytest.mark.parametrize("option", efficacy.SWEEPS)
def test_a_sweep_is_drawn(option, tmp_path, monkeypatch):
    monkeypatch.setattr(efficacy.plot, "FOLDER", tmp_path)
    rows = {value: [dict.fromkeys(efficacy.SHOWN, 0.5)] for value in efficacy.SWEEPS[option]}
    efficacy.draw_sweep(option, rows)
    assert (tmp_path / f"efficacy_{option}.png").exists()
