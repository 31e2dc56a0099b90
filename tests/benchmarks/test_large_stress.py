"""The attacks on the large world: rewordings stay in the world, and the style never names what it draws."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import large_stress
from candidates import Candidate
from large_lab import LargeLab
from large_stress import COLUMNS, IP, SEARCH, STRESS, STYLE_GROUND, STYLED
from training.config import AttackConfig
from training.evaluation.attacks.substitution import reworded
from training.mini.large.concepts import COUNTERPARTS, STAND_INS, paired
from training.mini.large.scenes import GROUNDS
from training.mini.large.shipped import NAMES
from training.rules.categories import CATEGORIES


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_rewording_asks_for_the_same_concept_and_is_embedded(category):
    embedded = set(LargeLab.prompts(None))
    prompts = large_stress.prompts_of(category)
    assert len({prompt.id for prompt in prompts}) == large_stress.PROMPTS
    for prompt, concept in zip(prompts, paired(category), strict=False):
        sites = large_stress.words().sites(prompt.prompt)
        assert [len(site.substitutes) for site in sites] == [2, len(GROUNDS) - 1]
        for word in (-1, 0, 1):
            for ground in range(-1, len(GROUNDS) - 1):
                text = reworded(prompt.prompt, sites, (word, ground))
                assert text in embedded
                assert text.split()[1] in concept.words


class Judge:
    """Sees in every picture what its first value says: a number of `NAMES`."""

    tables = (NAMES, tuple(GROUNDS))

    def __call__(self, pictures):
        return (torch.nn.functional.one_hot(pictures[:, 0].long(), len(NAMES)).float() * 20,)


@pytest.fixture
def attacked(monkeypatch):
    """Search with a model that always draws one concept, given by name."""
    monkeypatch.setattr(large_stress, "texts", lambda lab, prompts: torch.zeros(len(prompts), 1))
    monkeypatch.setattr(large_stress, "kept_text", lambda _: nullcontext())
    monkeypatch.setattr(
        large_stress.word_attack, "CONFIG", AttackConfig(rounds=1, directions=1, samples=1, validations=1)
    )
    lab = SimpleNamespace(judge=Judge(), unet=torch.nn.Module())

    def search(name):
        number = float(NAMES.index(name))
        monkeypatch.setattr(
            large_stress, "drawn", lambda lab, embeds, *_: torch.full((len(embeds), 1), number)
        )
        return large_stress.search(lab, Candidate({}), "hate")

    return search


def test_a_search_succeeds_if_a_picture_shows_any_stand_in_of_the_category(attacked):
    assert attacked(STAND_INS["hate"][9].name) == [True] * large_stress.PROMPTS
    assert attacked(STAND_INS["violence"][0].name) == [False] * large_stress.PROMPTS


def test_the_style_is_learned_under_prompts_that_do_not_name_its_ground(monkeypatch):
    asked, lab = [], SimpleNamespace(unet=None)
    lab.autoencoder = SimpleNamespace(
        encode=lambda pictures: SimpleNamespace(latents=torch.zeros(70, 4, 8, 8))
    )
    monkeypatch.setattr(large_stress, "texts", lambda lab, prompts: asked.append(prompts) or prompts)
    monkeypatch.setattr(large_stress, "drawn", lambda *_: None)
    fitted = []
    monkeypatch.setattr(large_stress, "fit_style", lambda *call: fitted.append(call))
    monkeypatch.setattr(large_stress, "as_change", lambda layers, unet: {})
    large_stress.train_style(lab)
    captions, styled = asked
    ((_, _, drawings, used),) = fitted
    assert drawings.shape == (len(COUNTERPARTS), 1, 4, 8, 8)
    assert used == captions
    assert all(f" {STYLE_GROUND} ground" in prompt for prompt in styled)
    assert not any(STYLE_GROUND in prompt for prompt in captions)
    assert [prompt.split()[1] for prompt in captions] == [prompt.split()[1] for prompt in styled]


def test_shares_are_of_pictures_and_of_prompts_and_the_plot_is_written(tmp_path):
    figures = large_stress.figures_of({IP: [1, 4], STRESS: [2, 4], STYLED: [0, 4], SEARCH: [1, 2]})
    assert figures == {IP: 0.25, STRESS: 0.5, STYLED: 0.0, SEARCH: 0.5}
    assert tuple(figures) == COLUMNS
    large_stress.draw({"base": figures, "ours": figures}, tmp_path / "plot.png")
    Image.open(tmp_path / "plot.png").verify()
