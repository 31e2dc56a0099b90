"""A short form of `benchmarks/load.py`."""

import pytest

import load

pytestmark = [pytest.mark.host, pytest.mark.slow]


def test_sixty_mixed_prompts_of_two_clients_end_as_expected_and_draw_what_the_stock_loader_draws(comfy):
    figures = load.load(comfy, 60)
    assert figures["other ends than expected"] == []
    assert figures["prompts with more than one result"] == 0
    assert sum(figures["prompts"].values()) >= 60
    assert min(figures["prompts"].values()) >= 6  # some of every kind
