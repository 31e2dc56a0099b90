"""Training a safety cost model: its losses by hand, its folds, and what it finds on pairs it has not seen."""

import math
from dataclasses import replace

import pytest
import torch

from tiny_costs import CONFIG, ENCODER, write_bars
from training.evaluation.cost_figures import cost_figures, measure_cost
from training.evaluation.cost_model import picture_digest
from training.evaluation.train_cost import contrast, cost_loss, train_cost
from training.system.pictures import picture_tensor

NO_PROJECTION = torch.zeros(2, 4)


def softplus(value):
    return math.log1p(math.exp(value))


def test_rank_and_anchor_are_those_of_the_formula():
    losers, winners = (torch.tensor(values) for values in ([2.0, -1.0], [0.5, 1.0]))
    loss = cost_loss((losers, NO_PROJECTION), (winners, NO_PROJECTION), torch.tensor([1, 1]), 0.0)
    rank = (softplus(-1.5) + softplus(2.0)) / 2
    anchor = (softplus(-2.0) + softplus(1.0)) / 2 + (softplus(0.5) + softplus(1.0)) / 2
    assert loss.item() == pytest.approx(rank + anchor)


def test_costs_of_zero_have_the_loss_of_three_coins():
    zero = torch.zeros(3), torch.zeros(3, 4)
    assert cost_loss(zero, zero, torch.ones(3), 0.0).item() == pytest.approx(3 * math.log(2))


def test_the_contrast_is_low_where_kinds_lie_apart_and_high_where_they_are_mixed():
    one, other = torch.eye(2)
    kinds = torch.tensor([0, 0, 1, 1])
    apart = contrast(torch.stack([one, one, other, other]), kinds)
    assert apart.item() == pytest.approx(math.log(1 + 2 * math.exp(-10)), abs=1e-5)
    mixed = contrast(torch.stack([one, other, one, other]), kinds)
    assert mixed.item() == pytest.approx(10 + math.log(1 + 2 * math.exp(-10)), abs=1e-4)


def test_a_picture_alone_in_its_kind_has_no_part_in_the_contrast():
    projections = torch.eye(3)
    assert contrast(projections, torch.tensor([0, 1, 2])).item() == 0
    assert contrast(projections, torch.tensor([0, 0, 2])).item() == pytest.approx(math.log(2))


def test_it_learns_what_tells_the_pictures_apart_and_is_measured_on_scenes_it_has_not_seen(tmp_path):
    trained = train_cost(write_bars(tmp_path, neutral=8), ENCODER, CONFIG)
    assert trained.held_out.order.rate == 1.0
    assert trained.held_out.twins.auroc > 0.99
    assert trained.held_out.neutral.auroc > 0.99  # a neutral picture has a horizontal bar, too
    assert trained.losses[-1] < trained.losses[0] / 2
    assert trained.num_scenes == 24
    assert "24 pairs of 24 scenes, hate; embedding: clip_vision" in trained.report()


def test_without_neutral_pictures_that_figure_is_not_measured(tmp_path):
    trained = train_cost(write_bars(tmp_path), ENCODER, replace(CONFIG, steps=2))
    assert trained.held_out.neutral is None
    assert trained.held_out.facts()["neutral"] is None
    assert "not measured, the pairs have no neutral pictures" in trained.report()


def test_it_does_not_confirm_swapped_pairs_that_it_was_trained_on(tmp_path):
    swapped = (3, 8, 13, 21)
    pairs = write_bars(tmp_path, 32, swapped=swapped)
    costs = train_cost(pairs, ENCODER, CONFIG).costs
    assert (costs["unsafe"] < costs["safe"]).nonzero()[:, 0].tolist() == list(swapped)


def test_every_picture_is_left_to_a_head_and_pairs_of_one_scene_to_the_same(tmp_path):
    pairs = write_bars(tmp_path)
    same = [replace(pair, safe_prompt="one safe prompt") for pair in pairs.pairs[:5]]
    pairs = replace(pairs, pairs=(*same, *pairs.pairs[5:]))
    trained = train_cost(pairs, ENCODER, replace(CONFIG, steps=1))
    assert trained.num_scenes == 20
    assert len(trained.model.folds) == 48
    assert set(trained.model.folds.values()) == set(range(CONFIG.folds))
    sizes = [list(trained.model.folds.values()).count(fold) for fold in range(CONFIG.folds)]
    assert max(sizes) - min(sizes) <= 8
    losers = {trained.model.folds[picture_digest(picture_tensor(pair.loser)[0])] for pair in same}
    assert len(losers) == 1


def test_fewer_scenes_than_folds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="5 folds need as many scenes .* got 3 in 3 pairs"):
        train_cost(write_bars(tmp_path, 3), ENCODER, replace(CONFIG, folds=5))


def test_the_same_seed_gives_the_same_model_and_another_seed_another(tmp_path):
    pairs, few = write_bars(tmp_path, 8), replace(CONFIG, steps=3)
    first, again, other = (
        train_cost(pairs, ENCODER, replace(few, seed=seed)).model.id() for seed in (0, 0, 1)
    )
    assert first == again != other


def test_a_cancel_while_training_passes_through(tmp_path):
    def stop(stage, done, total):
        if stage == "train" and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_cost(write_bars(tmp_path, 8), ENCODER, CONFIG, on_progress=stop)


def test_progress_counts_pictures_and_then_the_steps_of_all_heads(tmp_path):
    calls = []
    config = replace(CONFIG, steps=3, folds=2)
    train_cost(write_bars(tmp_path, 4), ENCODER, config, on_progress=lambda *call: calls.append(call))
    assert calls[7] == ("encode", 8, 8)
    assert calls[8:] == [("train", done, 6) for done in range(1, 7)]


def test_measuring_the_pairs_of_the_training_gives_its_held_out_figures(tmp_path):
    pairs = write_bars(tmp_path, neutral=4)
    trained = train_cost(pairs, ENCODER, replace(CONFIG, steps=10))
    measured = measure_cost(trained.model, pairs)
    assert measured.order == trained.held_out.order
    assert measured.twins.auroc == trained.held_out.twins.auroc
    assert measured.neutral.num_safe == 4


def test_figures_count_pairs_and_pictures():
    figures = cost_figures(torch.tensor([2.0, -1.0]), torch.tensor([1.0, -2.0]))
    assert (figures.order.hits, figures.order.n) == (2, 2)
    assert (figures.sign.hits, figures.sign.n) == (2, 4)
    assert figures.twins.auroc == 0.75
