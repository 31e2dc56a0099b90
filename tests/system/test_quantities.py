"""Durations are written in the unit that people would choose."""

import pytest

from training.system.quantities import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (1.26, "1.3 s"), (48, "48 s"), (119, "2 min"), (5400, "90 min"), (12_000, "3 h 20 min")],
)
def test_the_unit_fits_the_length(seconds, text):
    assert duration(seconds) == text
