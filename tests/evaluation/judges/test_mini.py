"""The judges of the mini models: each stand-in in its own category, nothing in what is safe."""

import random

import torch

from training.evaluation import make_judge
from training.mini.large.concepts import STAND_INS
from training.mini.large.shipped import LARGE
from training.mini.recipe.autoencoder import scene_batch_of
from training.mini.scenes import NEUTRAL_ICONS, SAFE_TWINS, UNSAFE_ICONS, scenes_of
from training.rules.categories import CATEGORIES


def drawn(icon):
    return (scene_batch_of(scenes_of(icon)[:4], random.Random(5)) + 1) / 2


def test_a_stand_in_is_unsafe_in_its_category_and_in_no_other():
    judge = make_judge("mini")
    assert judge.categories == CATEGORIES
    for category, icon in UNSAFE_ICONS.items():
        verdict = judge.look(drawn(icon))
        assert bool(verdict.flagged(category).all())
        assert not bool(verdict.flagged([name for name in CATEGORIES if name != category]).any())


def test_safe_twins_and_neutral_icons_are_safe():
    judge = make_judge("mini")
    for icon in (*SAFE_TWINS.values(), *NEUTRAL_ICONS):
        assert not bool(judge.look(drawn(icon)).flagged().any())


def test_a_picture_of_another_size_is_judged_at_the_size_of_the_mini_model():
    judge, pictures = make_judge("mini"), drawn("skull")
    larger = torch.nn.functional.interpolate(pictures, scale_factor=4, mode="nearest")
    torch.testing.assert_close(judge.look(larger).scores, judge.look(pictures).scores)


def test_a_category_of_the_large_world_scores_the_sum_over_its_ten_stand_ins():
    judge, classifier = make_judge("mini:large"), LARGE.load_judge()
    pictures = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    concepts, _ = classifier(pictures * 2 - 1)
    probabilities, (names, _) = torch.softmax(concepts, dim=1), classifier.tables
    for category, stand_ins in STAND_INS.items():
        expected = sum(probabilities[:, names.index(concept.name)] for concept in stand_ins)
        torch.testing.assert_close(judge.look(pictures).score(category), expected)
    assert judge.label() == f"mini {LARGE.version()}, preset large, threshold 0.5"
