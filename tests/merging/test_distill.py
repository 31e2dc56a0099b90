"""Distillation on a tiny UNet: what it learns, what it leaves alone, and what it refuses."""

import json
from dataclasses import replace

import pytest
import torch

from builders import expert_of
from tiny import TOKENS, WIDTH, random_layers, tiny_unet
from training.config import MergeConfig
from training.experts.low_rank import LowRank
from training.merging import (
    BaseNetwork,
    CalibrationInputs,
    Members,
    collect_statistics,
    distill,
    merge_experts,
)
from training.models.conditioning import Conditioning
from training.models.noise import NoiseSchedule, named_generator

LATENT = (4, 8, 8)
CATEGORIES = ("hate", "hate", "violence", "violence", "", "", "", "")
CONFIG = MergeConfig(method="distill", timesteps=2, distill_steps=1)


@pytest.fixture(scope="module")
def base():
    return BaseNetwork(tiny_unet(), NoiseSchedule.scaled_linear())


@pytest.fixture(scope="module")
def experts(base):
    layers = [random_layers(base.unet, seed=seed) for seed in (1, 2)]
    return [expert_of(one, name) for one, name in zip(layers, ("hate", "violence"), strict=True)]


def inputs(categories=CATEGORIES, pictures=True):
    generator = named_generator("inputs of distillation")
    prompts = Conditioning(torch.randn(len(categories), TOKENS, WIDTH, generator=generator))
    latents = [[torch.randn(LATENT, generator=generator)] for _ in categories]
    return CalibrationInputs(prompts, LATENT, categories, latents if pictures else None)


def distilled(base, experts, layers, *, strengths=None, given=None, **options):
    members = Members.of(experts, strengths)
    return distill(base, given or inputs(), members, layers, replace(CONFIG, **options))


def scaled(layers, factor):
    return {name: layer.scaled(factor) for name, layer in layers.items()}


def same(first, second):
    return all(
        torch.equal(first[name].up, second[name].up) and torch.equal(first[name].down, second[name].down)
        for name in first
    )


def test_a_merge_that_changes_nothing_answers_nothing_and_moves_nothing(base, experts):
    _, answered, moved = distilled(base, experts, scaled(experts[0].layers, 0.0))
    assert (answered, moved) == (pytest.approx(0), 0)


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
def test_the_expert_at_its_strength_answers_like_itself(base, experts, strength):
    start = scaled(experts[0].layers, strength)
    _, answered, moved = distilled(base, experts[:1], start, strengths=[strength])
    assert answered == pytest.approx(1, abs=1e-4)
    assert moved > 0
    _, answered, _ = distilled(base, experts[:1], start, strengths=[strength / 2])
    assert answered < 0.9


def test_more_steps_answer_more_like_every_expert(base, experts):
    start = {
        name: LowRank(torch.cat([part.up, other.up], 1) / 2, torch.cat([part.down, other.down]))
        for (name, part), other in zip(experts[0].layers.items(), experts[1].layers.values(), strict=True)
    }  # the average
    _, before, moved_before = distilled(base, experts, start)
    result = distilled(base, experts, start, distill_steps=60)
    assert result.answered - 3 * result.moved > before - 3 * moved_before
    assert {name: layer.rank for name, layer in result.layers.items()} == {
        n: s.rank for n, s in start.items()
    }


def test_the_same_seed_gives_the_same_merge_and_the_base_is_left_as_it_was(base, experts):
    weights = {name: value.clone() for name, value in base.unet.state_dict().items()}
    random_state = torch.get_rng_state()
    first, second, other = (
        distilled(base, experts, experts[0].layers, distill_steps=2, seed=seed).layers for seed in (3, 3, 4)
    )
    assert same(first, second)
    assert not same(first, other)
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(torch.equal(value, weights[name]) for name, value in base.unet.state_dict().items())
    assert not any(module._forward_hooks for module in base.unet.modules())
    assert not any(factor.requires_grad for layer in first.values() for factor in (layer.up, layer.down))


def test_prompts_without_pictures_are_drawn_by_the_base_model(base, experts):
    _, answered, _ = distilled(base, experts[:1], experts[0].layers, given=inputs(pictures=False))
    assert answered == pytest.approx(1, abs=1e-4)


def test_more_experts_than_a_step_asks_take_turns(base):
    names = [f"category {number}" for number in range(9)]
    many = [expert_of(random_layers(base.unet, seed=number), name) for number, name in enumerate(names)]
    seen = []
    result = distill(
        base,
        inputs((*names, "")),
        Members.of(many),
        many[0].layers,
        replace(CONFIG, distill_steps=2),
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]
    assert result.answered < 1


def test_a_merge_is_distilled_from_the_fit_and_says_so(base, experts):
    given, starts = inputs(), []

    def learned(members, layers):
        starts.append(layers)
        return distill(base, given, members, layers, CONFIG)

    def fit(members):
        return collect_statistics(base, given, members, CONFIG)

    merged = merge_experts(experts, CONFIG, calibrate=fit, distilled=learned)
    fitted = merge_experts(experts, replace(CONFIG, method="regmean"), calibrate=fit)
    (start,) = starts
    assert same(start, fitted.layers)
    assert not same(merged.layers, fitted.layers)
    facts = {key: merged.metadata[f"alignguard.distill_{key}"] for key in ("steps", "answered", "moved")}
    assert facts["steps"] == "1"
    assert f"share of the experts' answers that distillation reached: {facts['answered']}" in merged.report()
    assert json.loads(merged.metadata["alignguard.members"])[0]["name"] == experts[0].name


def test_what_distillation_cannot_use_is_refused(base, experts):
    with pytest.raises(ValueError, match="distill needs prompts that are not to change"):
        distilled(base, experts, experts[0].layers, given=inputs(CATEGORIES[:4]))
    with pytest.raises(ValueError, match="distill trains the merge on the base model"):
        merge_experts(
            experts, CONFIG, calibrate=lambda members: collect_statistics(base, inputs(), members, CONFIG)
        )
    given = inputs()
    given.pictures[6][0][:] = float("inf")
    with pytest.raises(ValueError, match=r"differences of the predictions in distillation: .* not finite"):
        distilled(base, experts, experts[0].layers, given=given, distill_steps=30)
