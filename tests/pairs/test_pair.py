"""A preference pair is a plain value."""

import dataclasses
from pathlib import Path

import pytest

from training.pairs.pair import PreferencePair


def test_a_pair_is_an_immutable_value():
    pair = PreferencePair("1", ("hate",), "unsafe", "safe", Path("s.png"), Path("u.png"))
    assert pair == dataclasses.replace(pair)
    assert len({pair, dataclasses.replace(pair)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        pair.winner = Path("u.png")
