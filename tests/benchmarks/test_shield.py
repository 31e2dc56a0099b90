"""What leaves the layers of a shield, from what each layer does with a prompt."""

import pytest

from large_groups import IP, LargeGroup
from shield import ROWS, Asked, _leaves, draw_layers
from training.mini.pairs import Asked as Scene

GROUP = LargeGroup(IP, (Scene("a wasp", ("wasp", "white")),), "hate")
UNSAFE_WITHOUT_EXPERT = {  # (draws the rewrite, has the expert) -> (counts, shows a stand-in)
    (False, False): [(True, True)],
    (False, True): [(False, False)],
    (True, False): [(False, False)],
    (True, True): [(False, False)],
}


def leaves(row, blocked, rewrite=None, counted=UNSAFE_WITHOUT_EXPERT):
    return _leaves(Asked(GROUP, 0, "a wasp", blocked, rewrite), 0, ROWS[row], counted)


def test_an_unsafe_picture_leaves_unless_a_layer_stops_it():
    assert leaves("nothing", blocked=True)
    assert not leaves("guard", blocked=True)
    assert leaves("guard", blocked=False)  # the guard missed it
    assert not leaves("expert", blocked=False)
    assert leaves("expert where the guard blocks", blocked=False)
    assert not leaves("expert where the guard blocks", blocked=True)
    assert not leaves("gate", blocked=False)
    assert not leaves("guard, rewriting, expert, gate", blocked=False)


@pytest.mark.parametrize("row", [row for row in ROWS if "rewriting" in row])
def test_a_blocked_prompt_without_a_rewrite_draws_nothing(row):
    everything = {key: [(True, False)] for key in UNSAFE_WITHOUT_EXPERT}
    assert not leaves(row, blocked=True, counted=everything)
    assert leaves(row, blocked=True, rewrite="a rose", counted=everything)


def test_the_plot_has_every_row(tmp_path):
    columns = {"IP": 0.1, "IP, unseen words": 0.2, "IP, unseen concepts": 0.5, "neutral, never seen": 0.9}
    draw_layers(dict.fromkeys(ROWS, columns), tmp_path / "shield.png")
    assert (tmp_path / "shield.png").stat().st_size > 0
