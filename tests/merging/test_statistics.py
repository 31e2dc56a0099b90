"""Statistics on disk: found again for what they hold for, and for nothing else."""

from dataclasses import replace

import pytest
import torch

from tiny import random_layers, tiny_unet
from training.config import MergeConfig
from training.experts.expert import SafetyExpert
from training.merging import StatisticsStore, collect_statistics, merge_experts
from training.models.conditioning import Conditioning
from training.models.noise import NoiseSchedule

CATEGORIES = ["hate", "violence", ""]


@pytest.fixture(scope="module")
def unet():
    return tiny_unet()


@pytest.fixture(scope="module")
def experts(unet):
    named = enumerate(CATEGORIES[:2])
    return [SafetyExpert(random_layers(unet, seed=i), (name,), "sd15", {}, name) for i, name in named]


class Calibration:
    """Collects with a store, and counts how often the model ran."""

    def __init__(self, unet, experts, folder):
        self.unet, self.experts, self.folder, self.runs = unet, experts, folder, 0

    def __call__(self, *, base_hash="b", seed=0, strengths=None, experts=None, **options):
        prompts = torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(seed))
        before = self.runs
        handle = self.unet.register_forward_pre_hook(self._count)
        try:
            found = collect_statistics(
                self.unet,
                NoiseSchedule.scaled_linear(),
                experts or self.experts,
                Conditioning(prompts),
                MergeConfig(timesteps=1, **options),
                latent_shape=(4, 8, 8),
                strengths=strengths,
                categories=CATEGORIES,
                store=StatisticsStore(self.folder, base_hash),
            )
        finally:
            handle.remove()
        return found, self.runs > before

    def _count(self, *_):
        self.runs += 1


@pytest.fixture
def calibrate(unet, experts, tmp_path):
    return Calibration(unet, experts, tmp_path)


@pytest.mark.parametrize(
    "options", [{"method": "co_merge"}, {"method": "co_merge", "statistic": "mean"}, {"method": "regmean"}]
)
def test_what_was_kept_gives_the_same_merge_without_a_pass(calibrate, experts, options):
    first, ran = calibrate(**options)
    again, ran_again = calibrate(**options)
    assert (ran, ran_again) == (True, False)
    config = MergeConfig(timesteps=1, output_rank=2, **options)
    one, two = (merge_experts(experts, config, statistics=found) for found in (first, again))
    assert one.content_hash == two.content_hash
    assert one.metadata == two.metadata


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"level": "rank neuron"},
        {"level": "rowpick_AB"},
        {"normalize": True},
        {"statistic": "max"},
        {"statistic": "mean"},
        {"method": "regmean"},
    ],
)
def test_other_strengths_need_no_second_pass_and_merge_as_after_a_fresh_one(
    calibrate, unet, experts, tmp_path, options
):
    given = {"method": "co_merge"} | options
    strengths = [0.5, 1.5]
    calibrate(**given)
    reused, ran = calibrate(strengths=strengths, **given)
    assert not ran
    fresh, ran = Calibration(unet, experts, tmp_path / "empty")(strengths=strengths, **given)
    assert ran
    config = MergeConfig(timesteps=1, **given)
    one, two = (
        merge_experts(experts, config, strengths=strengths, statistics=found) for found in (reused, fresh)
    )
    assert one.content_hash == two.content_hash
    assert one.metadata == two.metadata
    plain = merge_experts(experts, config, statistics=reused)
    assert plain.content_hash != one.content_hash


def test_other_circumstances_are_another_calibration(calibrate, experts):
    given = {"method": "regmean"}
    calibrate(**given)
    swapped = [
        replace(expert, categories=other.categories)
        for expert, other in zip(experts, experts[::-1], strict=True)
    ]
    for change in (
        {"base_hash": "other"},
        {"seed": 1},
        {"neutral_weight": 2.0},
        {"experts": experts[::-1]},
        {"experts": swapped},
        {"method": "co_merge"},
    ):
        assert calibrate(**(given | change))[1], change


def test_a_damaged_entry_is_made_anew(calibrate):
    calibrate()
    (file,) = calibrate.folder.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    assert calibrate()[1]
    assert not calibrate()[1]
