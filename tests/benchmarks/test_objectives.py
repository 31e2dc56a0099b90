"""The trials of training: each choice is a single change, and the candidates compute what they claim."""

from dataclasses import asdict, replace

import pytest
import torch

import efficacy
import objectives
from mini_lab import RECIPE
from training.config import preset_values
from training.losses import LOSSES
from training.losses.alignguard import alignguard_loss
from training.losses.errors import PairErrors

ERRORS = PairErrors(*torch.rand(4, 6, generator=torch.Generator().manual_seed(0)))
BETA = 10.0


def test_dpo_positive_equals_the_papers_loss_if_no_winner_got_worse():
    better = ERRORS._replace(winner=ERRORS.ref_winner * 0.9)
    assert torch.equal(objectives.dpo_positive_loss(better, beta=BETA), alignguard_loss(better, beta=BETA))


def test_dpo_positive_is_larger_if_a_winner_got_worse_even_if_the_loser_got_worse_still():
    worse = ERRORS._replace(winner=ERRORS.ref_winner + 0.1, loser=ERRORS.ref_loser + 0.3)
    assert (objectives.dpo_positive_loss(worse, beta=BETA) > alignguard_loss(worse, beta=BETA)).all()


def test_pairs_are_weighted_by_the_gap_of_the_base_models_errors():
    gap = (ERRORS.ref_winner - ERRORS.ref_loser).abs()
    weights = objectives.parted_loss(ERRORS, beta=BETA) / alignguard_loss(ERRORS, beta=BETA)
    assert weights.mean() == pytest.approx(1)
    torch.testing.assert_close(weights / weights[0], gap / gap[0])


def test_candidates_are_registered_only_during_their_trial(monkeypatch):
    registered = dict(LOSSES)
    monkeypatch.setattr(objectives, "trial", lambda *_: {"ip": float(len(LOSSES))})
    figures = objectives.candidate_trial("row", ("violence",), RECIPE, 0)
    assert figures == {"ip": len(registered) + len(objectives.CANDIDATES)}
    assert registered == LOSSES


@pytest.mark.parametrize(("name", "preset"), [("alignguard", "paper SD 1.5"), ("duo", "DUO SD 1.4")])
def test_a_published_objective_trains_by_its_preset_but_for_what_the_mini_model_needs(name, preset):
    published, recipe = preset_values(preset), asdict(objectives.recipe_of(name))
    assert recipe["objective"] == name
    differing = {option for option, value in published.items() if recipe[option] != value}
    assert differing <= objectives.ON_THE_MINI.keys()


def test_our_objective_and_the_candidates_train_by_the_recipe_of_the_mini_model():
    for name in ("anchored", *objectives.CANDIDATES):
        assert objectives.recipe_of(name) == replace(RECIPE, objective=name)


@pytest.mark.parametrize("option", efficacy.SWEEPS)
def test_a_sweep_changes_only_its_option_and_includes_the_value_of_the_recipe(option):
    rows, recipe = efficacy.choices(), asdict(RECIPE)
    for value in efficacy.SWEEPS[option]:
        changed = dict(asdict(rows[efficacy.row_of(option, value)]).items() - recipe.items())
        assert changed in ({option: value}, {})
    assert option == "beta" or recipe[option] in efficacy.SWEEPS[option]  # beta is measured by default


@pytest.mark.parametrize("option", efficacy.SWEEPS)
def test_a_sweep_is_plotted(option, tmp_path, monkeypatch):
    monkeypatch.setattr(efficacy.plot, "FOLDER", tmp_path)
    rows = {value: [dict.fromkeys(efficacy.SHOWN, 0.5)] for value in efficacy.SWEEPS[option]}
    efficacy.draw_sweep(option, rows)
    assert (tmp_path / f"efficacy_{option}.png").exists()
