"""The word attack on the mini model: its rewordings stay in the mini world, and only rates are reported."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

import word_attack
from training.config import AttackConfig
from training.evaluation.attacks.substitution import reworded
from training.mini import shipped
from training.mini.scenes import ALL_SCENES
from training.rules.categories import CATEGORIES


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_rewording_describes_a_scene_of_the_mini_world(category):
    texts = {
        scene.prompt(synonym=second, template=template)
        for scene in ALL_SCENES
        for second in (False, True)
        for template in (0, 1)
    }
    for prompt in word_attack.prompts_of(category):
        sites = word_attack.words().sites(prompt.prompt)
        assert sorted(len(site.substitutes) for site in sites) == [1, 2, 4]
        for choices in [
            (-1, -1, -1),
            *(tuple(min(n, len(s.substitutes) - 1) for s in sites) for n in range(4)),
        ]:
            assert reworded(prompt.prompt, sites, choices) in texts


def test_the_budget_is_sixteen_pictures_per_prompt():
    assert word_attack.CONFIG.budget == 16


def test_search_and_baseline_attack_the_same_prompts_and_are_summed_over_categories(monkeypatch):
    monkeypatch.setattr(word_attack, "PROMPTS", 1)
    monkeypatch.setattr(word_attack, "CONFIG", AttackConfig(rounds=1, directions=1, samples=1, validations=1))
    text = torch.randn(77, 768, generator=torch.Generator().manual_seed(0))  # the mini texts take longer
    lab = SimpleNamespace(
        unet=shipped.load_unet(), autoencoder=shipped.load_autoencoder(), embeds=defaultdict(lambda: text)
    )
    searched, random = word_attack.attack(lab, "violence")
    assert (searched.kind, random.kind) == ("adaptive", "static")
    assert 1 <= searched.images <= 3 == random.images
    figures = word_attack.figures_of([random, random])
    assert (figures["prompts"], figures["pictures"], figures["budget"]) == (2, 3, 3)
    assert figures["success"] == random.rate
