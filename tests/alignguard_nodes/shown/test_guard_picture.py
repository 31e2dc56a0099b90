"""The picture of a guard shows every kind of prompts it has, and says what is not measured."""

import numpy as np
import pytest
import torch
from PIL import ImageColor

SCORES = {
    "unsafe": torch.tensor([0.7, 0.8, 0.9]),
    "safe": torch.tensor([0.0, 0.1, 0.2]),
    "harmless": torch.tensor([-0.6, -0.5, -0.4]),
}


@pytest.fixture
def shown(pack):
    return pack("alignguard_nodes.shown.guard_picture")


def has(picture, colour):
    return bool((np.asarray(picture) == ImageColor.getrgb(colour)).all(axis=-1).any())


def test_every_kind_of_prompts_has_its_colour(shown):
    picture = shown.draw_guard(SCORES, 0.5)
    assert picture.size == (512, 256)
    assert all(has(picture, colour) for colour in shown.COLOURS.values())


def test_a_kind_without_prompts_is_missing(shown):
    picture = shown.draw_guard({"harmless": SCORES["harmless"]}, 0.5)
    assert has(picture, shown.COLOURS["harmless"])
    assert not has(picture, shown.COLOURS["unsafe"])


def test_a_higher_threshold_moves_the_line(shown):
    low, high = (np.asarray(shown.draw_guard(SCORES, threshold)) for threshold in (-0.5, 0.5))
    assert (low != high).any()
