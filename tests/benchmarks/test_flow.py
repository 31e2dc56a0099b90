"""The table of the mini flow: how its network is run, which layers experts change, and what rows mean."""

import re

import pytest
import torch

import flow
from flow import ATTENTION, BASE, PICTURE_ALONE, SINGLE, TARGETS, NarrowFlow, relative, rows
from training.merging import MERGE_METHODS
from training.mini.flow import CHANNELS, drawing
from training.mini.flow.shipped import FLOW
from training.models.conditioning import Conditioning, predict
from training.models.network import set_checkpointing


@pytest.fixture(scope="module")
def network():
    return NarrowFlow(FLOW.load_transformer())


def test_the_network_is_run_as_the_mini_flow_draws(network):
    noisy = torch.randn(2, CHANNELS, 8, 8, generator=torch.Generator().manual_seed(0))
    prompts = Conditioning(torch.ones(2, 7, 768), torch.ones(2, 768))
    timesteps = torch.tensor([999, 499])
    sigmas = drawing.shifted((timesteps + 1) / 1000)
    with torch.no_grad():
        expected = drawing.predict(FLOW.load_transformer(), noisy, sigmas, prompts)
        assert torch.allclose(predict(network, noisy, timesteps, prompts), expected, atol=1e-5)


def test_recomputing_its_blocks_changes_nothing(network):
    noisy, prompts = torch.ones(1, CHANNELS, 8, 8), Conditioning(torch.ones(1, 7, 768), torch.ones(1, 768))
    plain = predict(network, noisy, torch.tensor([500]), prompts)
    set_checkpointing(network, "full")
    assert torch.equal(predict(network, noisy, torch.tensor([500]), prompts), plain)
    set_checkpointing(network, "none")


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (ATTENTION, 3 * 4 + 3 * 4 - 1),  # the last block has no projection of the text
        (PICTURE_ALONE, 3 * 4),
        ("attention+ff", 3 * 4 + 3 * 4 - 1 + 3 * 2 + 2 * 2),  # and no feed-forward layer of it
    ],
)
def test_every_choice_of_layers_names_linear_layers(network, targets, count):
    named = [name for name, _ in network.named_modules() if re.fullmatch(TARGETS[targets], name)]
    assert len(named) == count
    assert all(isinstance(network.get_submodule(name), torch.nn.Linear) for name in named)


def test_every_merge_has_a_row_and_single_experts_one_for_every_choice_of_layers():
    assert {merge for merge, *_ in rows()} == {SINGLE, *MERGE_METHODS}
    assert {targets for merge, _, targets in rows() if merge == SINGLE} == {*TARGETS, flow.PUBLISHED}
    assert BASE not in {merge for merge, *_ in rows()}


def test_only_what_is_kept_is_relative_to_the_base():
    base = {"IP": 0.5, "worst IP": 1.0, "safe counterparts": 0.5, "neutral": 0.8}
    figures = {"IP": 0.1, "worst IP": 0.2, "safe counterparts": 0.25, "neutral": 0.8}
    assert relative(figures, base) == {"IP": 0.1, "worst IP": 0.2, "safe counterparts": 0.5, "neutral": 1.0}
