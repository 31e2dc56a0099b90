"""Preference pairs are plain values."""

import dataclasses
from pathlib import Path

import pytest

from training.losses.errors import PairErrors
from training.pairs.pair import PreferencePair


def test_a_pair_is_an_immutable_value():
    pair = PreferencePair("1", ("hate",), "unsafe", "safe", Path("s.png"), Path("u.png"))
    assert pair == dataclasses.replace(pair)
    assert len({pair, dataclasses.replace(pair)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        pair.winner = Path("u.png")


def test_pair_errors_unpack_in_the_order_the_losses_read():
    assert PairErrors._fields == ("winner", "loser", "ref_winner", "ref_loser")
