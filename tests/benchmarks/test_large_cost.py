"""Quality against steps and operations: a choice changes only what it names, operations are counted."""

from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import large_cost
from large_cost import BANKS, CHOICES, FIXED, RUNS, STEPS, Choice, figures_of
from large_groups import KEPT_COLUMNS, SAFETY
from training.experts.low_rank import LowRank
from training.mini.recipe.experts import CONFIG


def test_every_number_of_steps_meets_every_bank_with_and_without_the_safe_prompt():
    assert len({choice.row for choice in CHOICES}) == len(CHOICES) == (len(STEPS) + 1) * len(BANKS) * 2
    assert {choice.line for choice in CHOICES if not choice.steps} == {choice.line for choice in CHOICES}


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.row)
def test_a_choice_changes_only_what_it_names(choice):
    recipe, config = asdict(CONFIG), asdict(choice.config(CONFIG))
    changed = {name for name in config if config[name] != recipe[name]}
    fixed = {"steps", *FIXED} if choice.steps else set()
    assert changed <= {"bank", "safe_prompt_weight"} | fixed
    assert (config["bank"], config["safe_prompt_weight"]) == (choice.bank, choice.both)
    assert config["steps"] == (choice.steps or CONFIG.steps)
    assert (config["validation"] > 0) == (not choice.steps)


def result(hits, **cost):
    columns = dict.fromkeys((*SAFETY, *KEPT_COLUMNS), {"": [hits, 10]})
    return {"counts": columns, "steps": 60, "taken": 75, "operations": 2e12} | cost


def test_quality_is_the_mean_of_what_is_suppressed_and_what_is_kept():
    figures = figures_of(result(4), result(8))
    assert figures["quality"] == pytest.approx(((1 - 0.4) + 0.4 / 0.8) / 2)
    assert (figures["steps"], figures["steps taken"], figures["TFLOP"]) == (60, 75, 2.0)
    assert figures_of(result(8), result(8))["quality"] == pytest.approx(0.6)  # an expert that does nothing


@pytest.fixture
def lab(monkeypatch):
    """A lab whose training is one product of matrices."""
    lab = SimpleNamespace(unet=torch.nn.ModuleDict({"layer": torch.nn.Linear(2, 2)}), recipe=CONFIG)
    lab.schedule, lab.seed_offset, lab.trained = None, 0, []
    lab.pairs = lambda category: category
    lab.encode = lambda pairs, config: pairs

    def train(unet, data, schedule, config):
        lab.trained.append((data, config))
        torch.ones(2, 3) @ torch.ones(3, 4)
        layers = {"layer": LowRank(torch.ones(2, 1), torch.ones(1, 2))}
        return SimpleNamespace(layers=layers, steps_done=60, losses=[0.0] * 75)

    monkeypatch.setattr(large_cost, "_lab", lambda: lab)
    monkeypatch.setattr(large_cost, "train", train)
    monkeypatch.setattr(large_cost, "counts_of", lambda lab, candidate, groups: list(candidate.changes))
    return lab


def test_an_expert_is_trained_with_its_choice_and_seed_and_its_operations_are_counted(lab):
    choice = Choice(150, 8, False)
    measured = large_cost.trial("sexual", 1, *choice)
    assert measured == {"counts": [""], "operations": 2 * 2 * 3 * 4, "steps": 60, "taken": 75}
    ((data, config),) = lab.trained
    assert (data, config.seed, config.steps, config.bank) == ("sexual", 1, 150, 8)
    assert config.safe_prompt_weight == 0
    assert lab.seed_offset == large_cost.SEEDS_APART


def test_without_a_choice_the_base_model_is_measured(lab):
    assert large_cost.trial("sexual", 1) == {"counts": []}
    assert lab.trained == []


def test_the_plots_are_written(tmp_path):
    row = {"quality": 0.8, "steps taken": 100.0, "TFLOP": 3.0}
    large_cost.draw({choice: [row] * len(RUNS) for choice in CHOICES}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "large_cost_steps.png",
        "large_cost_tflop.png",
    ]
    Image.open(tmp_path / "large_cost_tflop.png").verify()
