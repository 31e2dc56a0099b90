"""The recipes of the mini models: a killed one goes on where it stopped, and words are those of CLDR."""

import json
import random

import pytest
import torch

from training.mini.flow import recipe as flow_recipe
from training.mini.flow.recipe import FlowDenoiser
from training.mini.large.concepts import ALL_CONCEPTS
from training.mini.large.recipe.__main__ import STEPS, learning_rates
from training.mini.large.recipe.emoji import check_words
from training.mini.recipe import seeded
from training.mini.recipe.denoiser import Captioned, Denoiser
from training.mini.recipe.denoiser_state import load_denoiser, save_denoiser
from training.models.conditioning import Conditioning


@pytest.fixture(scope="module", params=["unet", "flow"])
def training(request):
    """A function that makes a denoiser from a seed, and what it learns from."""
    generator = torch.Generator().manual_seed(0)
    latents, captions, empty = ((3, 2, 4, 8, 8), (3, 2, 77, 768), (1, 77, 768))
    if request.param == "unet":
        data = Captioned(*(torch.randn(shape, generator=generator) for shape in (latents, captions, empty)))
        return (lambda seed: Denoiser(seed, learning_rates)), data
    prompts = Conditioning(*(torch.randn(7, *shape, generator=generator) for shape in ((77, 768), (768,))))
    data = torch.randn(latents, generator=generator), prompts
    return (lambda seed: FlowDenoiser(seed, flow_recipe.learning_rates)), data


@pytest.mark.slow
def test_a_killed_denoiser_ends_as_one_that_ran_through(training, tmp_path):
    new_denoiser, data = training
    unbroken, killed = new_denoiser(0), new_denoiser(0)
    for _ in range(3):
        unbroken.step(data)
    killed.step(data)
    save_denoiser(killed, tmp_path / "state.safetensors")
    resumed = new_denoiser(1)
    load_denoiser(resumed, tmp_path / "state.safetensors")
    while resumed.steps < 3:
        resumed.step(data)
    for part in ("unet", "average"):
        expected, actual = (getattr(model, part).state_dict() for model in (unbroken, resumed))
        assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert resumed.schedule.get_last_lr() == unbroken.schedule.get_last_lr()
    assert [file.name for file in tmp_path.iterdir()] == ["state.safetensors"]


@pytest.mark.parametrize(
    ("rates", "steps"), [(learning_rates, STEPS), (flow_recipe.learning_rates, flow_recipe.STEPS)]
)
def test_the_learning_rate_rises_stays_and_falls_to_nothing(rates, steps):
    parameter = torch.nn.Parameter(torch.zeros(1))
    schedule = rates(torch.optim.SGD([parameter], lr=1.0))
    (share,) = schedule.lr_lambdas
    assert share(0) < share(100) < share(steps // 3) == 1
    assert 1 > share(steps - 100) > share(steps) == 0


def test_a_flow_that_predicts_nothing_errs_by_the_size_of_the_velocity():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(300, 2, 4, 8, 8, generator=generator)
    prompts = Conditioning(torch.zeros(301, 77, 768), torch.zeros(301, 768))
    loss = FlowDenoiser(0, flow_recipe.learning_rates).loss((latents, prompts))
    assert loss.item() == pytest.approx(2, abs=0.1)  # variances of noise and latents; mean of 32,768 numbers


def test_a_row_and_its_caption_show_the_same_scene():
    latents = torch.arange(300.0)[:, None, None, None, None].expand(300, 2, 4, 8, 8)
    rows, numbers = flow_recipe.draw_batch(latents, 1201, torch.Generator().manual_seed(0))
    captioned = numbers > 0
    assert 0 < int((~captioned).sum()) < len(rows) / 2  # the empty prompt, for guidance
    assert torch.equal((numbers[captioned] - 1) // 4, rows[captioned][:, 0, 0, 0].long())


def test_seeded_networks_are_equal_and_leave_the_global_random_state():
    before = torch.get_rng_state()
    first, second = (seeded(lambda: torch.nn.Linear(3, 3), 5) for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(before, torch.get_rng_state())


@pytest.fixture
def cldr(tmp_path):
    """A package that gives each emoji the words of its concept, and one more."""
    words = {
        concept.emoji: {"tts": [concept.words[0].title()], "default": [*concept.words[1:], "thing"]}
        for concept in ALL_CONCEPTS
    }
    file = tmp_path / "annotations" / "en" / "annotations.json"
    file.parent.mkdir(parents=True)

    def write():
        file.write_text(json.dumps({"annotations": {"annotations": words}}), encoding="utf-8")
        return tmp_path

    return words, write


def test_words_are_checked_against_the_names_and_keywords_of_cldr(cldr):
    words, write = cldr
    check_words(write())
    concept = random.Random(0).choice(ALL_CONCEPTS)
    words[concept.emoji]["default"].remove(concept.words[2])
    with pytest.raises(ValueError, match=f"{concept.emoji}: CLDR has no {concept.words[2]} among"):
        check_words(write())
