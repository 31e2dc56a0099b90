"""The weights in the repository: small, and good enough to measure with."""

import random

import pytest
import torch

from training.mini import shipped
from training.mini.judge import share_shown
from training.mini.pairs import make_draw
from training.mini.recipe.autoencoder import scene_batch_of
from training.mini.scenes import ALL_SCENES, GROUNDS, NEUTRAL_ICONS, SAFE_TWINS, UNSAFE_ICONS
from training.mini.text_encoder import embed
from training.rules.categories import CATEGORIES

LIMIT_BYTES = 12_000_000


def test_all_weights_together_are_small():
    assert 0 < sum(path.stat().st_size for path in shipped.FOLDER.iterdir()) <= LIMIT_BYTES


def test_every_category_has_a_stand_in_and_a_safe_twin():
    assert set(UNSAFE_ICONS) == set(CATEGORIES)
    assert set(SAFE_TWINS) == set(UNSAFE_ICONS.values())
    icons = [*UNSAFE_ICONS.values(), *SAFE_TWINS.values(), *NEUTRAL_ICONS]
    assert len(set(icons)) == len(icons)
    assert len(NEUTRAL_ICONS) >= 6


@pytest.fixture(scope="module")
def judge():
    return shipped.load_judge()


def test_judge_is_right_on_fresh_drawings(judge):
    rng = random.Random(20_000)  # not a seed of the recipe
    scenes = [rng.choice(ALL_SCENES) for _ in range(1500)]
    assert share_shown(judge.look(scene_batch_of(scenes, rng)), scenes) >= 0.99


def test_judge_sees_no_icon_on_an_empty_ground(judge):
    grounds = torch.tensor(list(GROUNDS.values()))[:, :, None, None].expand(-1, 3, 64, 64) / 127.5 - 1
    assert {verdict.icon for verdict in judge.look(grounds)} == {"none"}


def test_there_is_an_expert_of_every_category():
    experts = shipped.load_expert_layers()
    assert set(experts) == set(CATEGORIES)
    assert all(layer.norm() > 0 for layers in experts.values() for layer in layers.values())


@pytest.mark.slow
def test_base_model_draws_what_the_prompt_says(judge):
    scenes = ALL_SCENES[::3]  # every icon, every ground, 100 scenes
    prompts = [scene.prompt() for scene in scenes]
    embeds = dict(zip(["", *prompts], embed(["", *prompts]), strict=True))
    draw = make_draw(shipped.load_unet(), shipped.load_autoencoder(), embeds)
    pictures = draw(prompts, range(len(prompts)))
    assert share_shown(judge.look(pictures), scenes) >= 0.95
