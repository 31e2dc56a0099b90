"""The picture of labelled pairs shows every outcome, and says when nothing was measured."""

import numpy as np
import pytest
from PIL import ImageColor


@pytest.fixture
def shown(pack):
    return pack("alignguard_nodes.shown.label_picture")


def widths(picture, shown):
    """Return the number of pixels of each colour in the row of the first bar, a little below its top."""
    line = np.asarray(picture)[shown.MARGIN + 5]
    return {
        name: int((line == ImageColor.getrgb(colour)).all(axis=-1).sum())
        for name, colour in shown.COLOURS.items()
    }


def test_a_bar_is_divided_by_outcome_and_every_reason_is_quarantine(shown):
    counts = {"hate": {"kept": 2, "relabelled": 1, "the pictures show different scenes": 1}}
    picture = shown.draw_labels(counts)
    assert picture.size == (512, 256)
    bar = widths(picture, shown)
    assert bar["kept"] == pytest.approx(2 * bar["relabelled"], abs=3)
    assert bar["quarantine"] == pytest.approx(bar["relabelled"], abs=3)


def test_nothing_measured_draws_no_bar(shown):
    assert set(widths(shown.draw_labels({}), shown).values()) == {0}


def test_twenty_categories_fit(shown):
    assert shown.draw_labels({f"name {number}": {"kept": number} for number in range(1, 21)}).size == (
        512,
        256,
    )
