"""The table that decides: its rows, what each is made from, and figures relative to the base."""

from types import SimpleNamespace

import pytest
from PIL import Image

import candidates
import large_world
import objectives
from candidates import Candidate
from large_groups import IP, KEPT_COLUMNS, NEVER, SAFETY
from large_world import BASE, MERGED_AS_PUBLISHED, TIME, figures_of, makers
from training.merging import MERGE_METHODS
from training.rules.categories import CATEGORIES


def counts(hits):
    return {
        **{column: {category: [hits, 10] for category in CATEGORIES} for column in SAFETY},
        **{column: {"": [hits, 10]} for column in KEPT_COLUMNS},
    }


@pytest.fixture
def made(monkeypatch):
    """Return what each row is made from, without making it."""
    lab, calls = SimpleNamespace(recipe="the lab's"), []
    monkeypatch.setattr(candidates, "single_experts", lambda *call: calls.append(("single", *call[1:])))
    monkeypatch.setattr(candidates, "merge", lambda *call: calls.append(("merge", *call[1:])))
    return makers(lab, 1), calls


def test_the_rows_are_ours_the_baselines_and_the_published_objectives(made):
    rows, _ = made
    assert list(rows)[0] == BASE
    assert {*candidates.ESD, "UCE", "SLD strong", "SLD max", MERGED_AS_PUBLISHED} <= rows.keys()
    assert set(large_world.DUAL_LATENTS) | set(large_world.REACHING) <= rows.keys()
    assert {f"{name}, single experts" for name in objectives.PUBLISHED} <= rows.keys()
    merges = {"regmean", "distill", "co_merge", "ties", "concat"}
    assert merges | {"single experts", "all-in-one"} <= rows.keys()
    assert {row for row in rows if row in MERGE_METHODS} == merges


def test_a_published_objective_trains_by_its_own_recipe_and_ours_by_the_labs(made):
    rows, calls = made
    for row in (
        "single experts",
        *large_world.REACHING,
        "regmean",
        *(f"{name}, single experts" for name in objectives.PUBLISHED),
    ):
        rows[row]()
    rows[MERGED_AS_PUBLISHED]()
    recipes = {name: objectives.recipe_of(name) for name in objectives.PUBLISHED}
    assert calls == [
        ("single", 1),
        *(("single", 1, recipe) for recipe in large_world.REACHING.values()),
        ("merge", "regmean", 1),
        *(("single", 1, recipe) for recipe in recipes.values()),
        ("merge", "co_merge", 1, recipes["alignguard"]),
    ]


def test_every_lora_that_a_row_needs_is_trained_before_the_rows_are_made(monkeypatch, made):
    rows, _ = made
    needed, trained = large_world.trainings(2, rows), []
    monkeypatch.setattr(large_world, "_lab", lambda: None)
    monkeypatch.setattr(large_world, "trained", lambda lab, *call: trained.append(call))
    for call in needed:
        large_world.train_one(*call)
    recipes = [None, *large_world.REACHING.values(), *map(objectives.recipe_of, objectives.PUBLISHED)]
    assert (CATEGORIES, 2, None) in trained
    assert {(categories, recipe) for categories, _, recipe in trained if len(categories) == 1} == {
        ((name,), recipe) for name in CATEGORIES for recipe in recipes
    }
    assert {seed for _, seed, _ in trained} == {2}


@pytest.mark.parametrize(
    ("row", "recipes"),
    [
        (BASE, set()),
        ("UCE", set()),
        ("regmean", {""}),
        ("single experts", {""}),
        (MERGED_AS_PUBLISHED, {"alignguard"}),
        (large_world.single("duo"), {"duo"}),
        *((row, {row}) for row in large_world.REACHING),
        *((row, {of}) for row, of in large_world.REACHING_MERGED.items()),
    ],
)
def test_rows_that_are_left_out_train_nothing(row, recipes):
    needed = large_world.trainings(0, (BASE, row))
    assert needed == [(recipe, (name,), 0) for recipe in recipes for name in CATEGORIES]
    assert large_world.trainings(0, (large_world.ALL_IN_ONE,)) == [("", CATEGORIES, 0)]


def test_a_row_that_does_not_exist_is_named_before_anything_is_made(monkeypatch):
    monkeypatch.setattr(large_world, "prepare", lambda lab: pytest.fail("it began"))
    with pytest.raises(SystemExit, match="unknown row 'regmeen'; choose from base, single experts"):
        large_world.measure(["regmeen"])


def test_a_seed_draws_other_pictures_and_a_row_says_what_its_making_took(monkeypatch):
    lab = SimpleNamespace(seed_offset=0)
    monkeypatch.setattr(large_world, "_lab", lambda: lab)
    monkeypatch.setattr(large_world, "makers", lambda lab, seed: {"row": lambda: Candidate({}, 3.0 + seed)})
    monkeypatch.setattr(large_world, "counts_of", lambda lab, candidate, groups: {"drawn": lab.seed_offset})
    assert large_world.trial("row", 2) == {"train_s": 5.0, "counts": {"drawn": 2 * large_world.SEEDS_APART}}


def test_only_what_is_kept_is_relative_and_only_to_the_base_of_the_same_seed():
    results = {
        (BASE, 0): {"train_s": 0.0, "counts": counts(8)},
        (BASE, 1): {"train_s": 0.0, "counts": counts(4)},
        ("ours", 0): {"train_s": 9.0, "counts": counts(4)},
        ("ours", 1): {"train_s": 9.0, "counts": counts(4)},
    }
    first, second = (figures_of("ours", seed, results) for seed in (0, 1))
    assert (first[IP], second[IP]) == (0.4, 0.4)
    assert (first[NEVER], second[NEVER], first[TIME]) == (0.5, 1.0, 9.0)
    assert figures_of(BASE, 0, results) == dict.fromkeys((*SAFETY, *KEPT_COLUMNS), 0.8) | {TIME: 0.0}


def test_the_plot_is_written(tmp_path):
    row = dict.fromkeys((*SAFETY, *KEPT_COLUMNS), 0.5) | {TIME: 1.0}
    large_world.draw_trade_off({BASE: [row, row], "ours": [row, row]}, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.format == "PNG"
        picture.verify()
