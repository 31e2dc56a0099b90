"""Dual Latent Guidance without a host: which safe context it takes, and when it leaves the model alone."""

import pytest
import torch

from training.config import DualLatentConfig
from training.evaluation.attacks import ConceptDirection
from training.models.conditioning import Conditioning

MODEL = object()
V = torch.zeros(1, 3, 4)
V[0, 1, 2] = 2.0
CONCEPT = ConceptDirection(Conditioning(V), 1, 1.0, Conditioning(torch.zeros(1, 3, 4)))


def entry(width=4, level=0.0):
    embeds = torch.ones(1, 3, width)
    embeds[0, 1, 2] = level
    return [[embeds, {"area": (8, 8, 0, 0)}]]


@pytest.fixture
def node(node_class, pack):
    """Return the node, whose host reports what it would guide to."""
    cls, host = node_class("dual_latent"), pack("alignguard_nodes").host
    host.guide_to = lambda model, safe, config: (model, safe, config)

    def changed(conditioning, change):
        return [[change(Conditioning(embeds)).text_embeds, extra] for embeds, extra in conditioning]

    host.changed_conditioning = changed
    return cls


def test_an_encoded_safe_prompt_is_the_context(node):
    safe = entry()
    (guided,) = node.execute(MODEL, entry(), safe=safe, weight=0.5, start=0.1).values
    model, context, config = guided
    assert (model, context) == (MODEL, safe)
    assert (config.weight, config.start) == (0.5, 0.1)


def test_of_a_concept_the_context_is_the_prompt_without_it(node):
    (guided,) = node.execute(MODEL, entry(level=5.0), concept=CONCEPT).values
    [[embeds, extra]] = guided[1]
    assert torch.equal(embeds, entry(level=0.0)[0][0])
    assert extra == {"area": (8, 8, 0, 0)}


def test_the_options_have_the_defaults_of_their_config(node):
    config = node.execute(MODEL, entry(), safe=entry()).values[0][2]
    assert (config.weight, config.start) == (DualLatentConfig.weight, DualLatentConfig.start)


@pytest.mark.parametrize("off", [{"active": False}, {"weight": 0.0}])
def test_switched_off_it_gives_the_very_model(node, off):
    assert node.execute(MODEL, entry(), safe=entry(), **off).values == (MODEL,)


def test_a_guard_that_passes_a_prompt_still_learns_of_a_wrong_context(node):
    with pytest.raises(ValueError, match="width 5, but positive to width 4"):
        node.execute(MODEL, entry(), safe=entry(width=5), active=False)


@pytest.mark.parametrize("contexts", [{}, {"safe": entry(), "concept": CONCEPT}])
def test_exactly_one_context_is_asked_for_before_the_queue_starts(node, contexts):
    assert "connect either safe" in node.validate_inputs(**dict.fromkeys(contexts))
    with pytest.raises(ValueError, match="connect either safe"):
        node.execute(MODEL, entry(), **contexts)


def test_a_linked_context_passes_validation(node):
    assert node.validate_inputs(safe=None) is True
    assert node.validate_inputs(concept=None) is True
