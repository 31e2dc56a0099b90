"""A preference pair is a plain value."""

import dataclasses
from pathlib import Path

import pytest

from builders import preference_pair


def test_a_pair_is_an_immutable_value():
    pair = preference_pair(1)
    assert pair == dataclasses.replace(pair)
    assert len({pair, dataclasses.replace(pair)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        pair.winner = Path("u.png")
