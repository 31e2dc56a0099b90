"""Merges of growing numbers of experts: which concepts they have, what they keep, and where they fall."""

import math
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import large_scale
import plot
from large_groups import IP, NEVER, SAFE, SAFETY, UNSEEN_WORDS
from large_scale import ALONE, BASE, KEPT_WORDS, SIZES, concepts, falls_at, figures_of, row_of
from training.experts.low_rank import LowRank
from training.merging import MERGE_METHODS
from training.mini.large.concepts import STAND_INS, paired
from training.rules.categories import CATEGORIES


@pytest.mark.parametrize("size", SIZES)
def test_each_category_has_as_many_experts_and_fewer_are_the_first_of_more(size):
    chosen = concepts(size)
    assert chosen == concepts(SIZES[-1])[:size]
    for category in CATEGORIES:
        own = [one.concept for one in chosen if one.category == category]
        assert len(set(own)) == size / len(CATEGORIES)
        assert set(own) <= set(STAND_INS[category])


def test_concepts_in_pairs_come_first_and_seventy_experts_have_all_stand_ins():
    assert all(one.concept in paired(one.category) for one in concepts(49))
    assert {one.concept for one in concepts(70)} == {one for row in STAND_INS.values() for one in row}


def counts(ip, unseen, kept):
    return {IP: {"hate": [ip, 10]}, UNSEEN_WORDS: {"hate": [unseen, 10]}} | {
        column: {"": [kept, 10]} for column in (SAFE, NEVER)
    }


def results(size):
    cost = {"seconds": 2.0, "operations": 3e12}
    return {
        (size, BASE): {"counts": counts(10, 10, 8)},
        (size, ALONE): {"counts": {IP: {"hate": [2, 10]}, UNSEEN_WORDS: {"hate": [10, 10]}}},
        (size, "regmean"): {"counts": counts(4, 5, 4)} | cost,
    }


def test_a_merge_keeps_a_share_of_what_its_experts_do_alone():
    figures = figures_of(7, "regmean", results(7))
    assert figures["kept"] == pytest.approx(0.6 / 0.8)
    assert (figures[IP], figures[NEVER], figures["seconds"], figures["TFLOP"]) == (0.4, 0.5, 2.0, 3.0)


def test_a_share_of_nothing_is_not_measured():
    figures = figures_of(7, "regmean", results(7))  # the experts alone do not lower the IP on unseen words
    assert math.isnan(figures[KEPT_WORDS])
    assert falls_at({7: 1.0, 14: math.nan}) == "not measured"


def test_a_method_falls_at_the_first_number_of_experts_at_which_it_keeps_too_little():
    assert falls_at({7: 1.0, 14: 0.91, 28: 0.89, 70: 0.95}) == "28"
    assert falls_at(dict.fromkeys(SIZES, 0.9)) == "over 70"


def test_a_row_has_what_is_kept_at_every_number_and_its_cost_at_the_largest():
    figures = {(size, "regmean"): figures_of(size, "regmean", results(size)) for size in SIZES}
    figures[70, "regmean"] |= {"kept": 0.1, "seconds": 5.0}
    row = row_of("regmean", figures)
    assert [row[f"kept at {size}"] for size in SIZES] == pytest.approx([0.75, 0.75, 0.75, 0.1])
    assert (row["falls at"], row["others fall at"], row["seconds"]) == ("7", "7", 5.0)


def test_a_line_has_the_shares_that_were_measured_inside_the_plot():
    assert large_scale.shown({7: math.nan, 14: -2.0, 28: 0.5, 70: 1.7}) == [(14, 0.0), (28, 0.5), (70, 1.05)]


def test_both_plots_are_written_without_a_method_that_was_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(plot, "FOLDER", tmp_path)
    kept = dict.fromkeys(MERGE_METHODS, 0.5) | {"average": math.nan}
    large_scale.draw({(size, name): {"kept": kept[name], NEVER: 0.9} for size in SIZES for name in kept})
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["large_scale_kept.png", "large_scale_others.png"]
    Image.open(files[0]).verify()


@pytest.fixture
def lab(monkeypatch):
    """Replace experts, merging and drawing: a row suppresses as many pictures as its layers have rank."""
    lab = SimpleNamespace(unet=torch.nn.ModuleDict({"layer": torch.nn.Linear(2, 2)}))
    layers = {"layer": LowRank(torch.ones(2, 1), torch.ones(1, 2))}
    expert = SimpleNamespace(layers=layers)
    monkeypatch.setattr(large_scale, "_lab", lambda: lab)
    monkeypatch.setattr(large_scale, "expert_of", lambda lab, concept: expert)

    def merged(lab, experts, method, output_rank, seed):
        torch.ones(2, 3) @ torch.ones(3, 4)
        return expert

    def count(lab, candidate, group):
        changes = bool(candidate.change(group.category))
        return [not changes] * len(group.asked)

    monkeypatch.setattr(large_scale, "merged", merged)
    monkeypatch.setattr(large_scale, "count", count)
    monkeypatch.setattr("large_lab.count", count)
    return lab


def test_a_merge_is_measured_on_all_concepts_and_on_what_is_kept_and_its_cost_is_counted(lab):
    result = large_scale.trial(7, "regmean")
    assert result["operations"] == 2 * 2 * 3 * 4
    assert result["seconds"] >= 0
    assert result["counts"][IP] == {category: [0, 4] for category in CATEGORIES}
    assert result["counts"][NEVER] == {"": [0, 35]}
    base = large_scale.trial(7, BASE)
    assert base.keys() == {"counts"}
    assert base["counts"][IP] == {category: [4, 4] for category in CATEGORIES}


def test_experts_alone_are_measured_on_their_own_concepts_and_on_nothing_else(lab):
    alone = large_scale.trial(14, ALONE)["counts"]
    assert alone.keys() == set(SAFETY[:2])
    assert alone[IP] == {category: [0, 8] for category in CATEGORIES}
