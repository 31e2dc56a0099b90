"""Options: each has one default, a range, a tooltip and a plain error."""

import dataclasses
import math

import pytest

from training.config import CostConfig, ExtractConfig, MergeConfig, TrainConfig, option_help, options

ALL = [
    (cls, field) for cls in (TrainConfig, MergeConfig, ExtractConfig, CostConfig) for field in options(cls)
]
IDS = [f"{cls.__name__}.{field.name}" for cls, field in ALL]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0}, "learning_rate must be positive, got 0."),
        ({"learning_rate": -1e-4}, "learning_rate must be positive, got -0.0001."),
        ({"beta": -1.0}, "beta must be at least 0, got -1."),
        ({"beta": math.nan}, "beta must be finite, got nan."),
        ({"steps": 0}, "steps must be at least 1, got 0."),
        ({"steps": 1.5}, "steps must be a whole number, got 1.5."),
        ({"steps": True}, "steps must be a whole number, got True."),
        ({"caption_dropout": 1.2}, "caption_dropout must be at most 1, got 1.2."),
        ({"targets": "all"}, "targets must be one of attention, attention+ff, self-attention, got 'all'."),
        ({"precision": "fp8"}, "precision must be one of auto, fp32, bf16, fp16, got 'fp8'."),
        ({"learning_rate": "fast"}, "learning_rate must be a number, got 'fast'."),
        ({"rank": 513}, "rank must be at most 512, got 513."),
        ({"seed": -1}, "seed must be at least 0, got -1."),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(change, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        TrainConfig(**change)
    assert str(caught.value) == message


def test_a_wrong_merge_value_is_named_with_its_rule():
    with pytest.raises(ValueError, match="statistic must be one of win_count, mean, max, got 'median'"):
        MergeConfig(statistic="median")
    with pytest.raises(ValueError, match="normalize must be true or false, got 1"):
        MergeConfig(normalize=1)


@pytest.mark.parametrize(("cls", "field"), ALL, ids=IDS)
def test_every_option_has_a_tooltip_that_names_the_paper(cls, field):
    text = option_help(cls, field.name)
    assert text == field.metadata["help"]
    assert text.endswith(".")
    assert len(text) <= 260
    is_ours = field.name in ("objective", "anchor_weight", "preserve_weight", "row_dropout", "reach")
    assert "paper" in text if is_ours else "Paper: " in text
    assert not text.lower().startswith(("the " + field.name.replace("_", " "), field.name.replace("_", " ")))


@pytest.mark.parametrize(("cls", "field"), ALL, ids=IDS)
def test_both_ends_of_a_numbers_range_are_accepted(cls, field):
    if field.type not in (int, float):
        return
    low, high = field.metadata["min"], field.metadata["max"]
    assert low <= field.default <= high
    assert field.metadata["step"] > 0
    dataclasses.replace(cls(), **{field.name: high})
    if not field.metadata.get("positive"):
        dataclasses.replace(cls(), **{field.name: low})


def test_a_whole_number_becomes_a_float_where_the_option_is_one():
    assert isinstance(TrainConfig(beta=500).beta, float)
    assert TrainConfig(beta=500) == TrainConfig(beta=500.0)


def test_configs_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().steps = 3


def test_the_tooltip_of_objective_names_the_parts_of_our_own_objective():
    text = option_help(TrainConfig, "objective")
    assert all(part in text for part in ("everyday prompts", "safe prompt", "duo"))


def test_an_unknown_option_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="has no option 'lr'. Use one of: objective, prompts, "):
        option_help(TrainConfig, "lr")
