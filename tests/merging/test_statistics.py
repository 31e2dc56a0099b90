"""Statistics on disk: read again for the same calibration, and for no other."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from builders import expert_of
from tiny import random_layers, tiny_unet
from training.config import MergeConfig
from training.merging import (
    BaseNetwork,
    CalibrationInputs,
    Members,
    StatisticsStore,
    collect_statistics,
    merge_experts,
)
from training.models.conditioning import Conditioning
from training.models.noise import NoiseSchedule
from training.system.tensors import open_tensors

CATEGORIES = ["hate", "violence", ""]


@pytest.fixture(scope="module")
def unet():
    return tiny_unet()


@pytest.fixture(scope="module")
def experts(unet):
    return [expert_of(random_layers(unet, seed=seed), name) for seed, name in enumerate(CATEGORIES[:2])]


class Calibration:
    """Collects with a store, and counts how often the model ran."""

    def __init__(self, unet, experts, folder):
        self.unet, self.experts, self.folder, self.runs = unet, experts, folder, 0

    def __call__(self, *, base_hash="b", seed=0, strengths=None, experts=None, **options):
        prompts = torch.randn(3, 7, 16, generator=torch.Generator().manual_seed(seed))
        before = self.runs
        handle = self.unet.register_forward_pre_hook(self._count)
        try:
            statistics = collect_statistics(
                BaseNetwork(self.unet, NoiseSchedule.scaled_linear(), base_hash),
                CalibrationInputs(Conditioning(prompts), (4, 8, 8), CATEGORIES),
                Members.of(experts or self.experts, strengths),
                MergeConfig(timesteps=1, **options),
                store=StatisticsStore(self.folder),
            )
        finally:
            handle.remove()
        return statistics, self.runs > before

    def _count(self, *_):
        self.runs += 1


def merge(experts, statistics, config, strengths=None):
    """Merge with statistics that were collected before."""
    return merge_experts(experts, config, strengths=strengths, calibrate=lambda _: statistics)


@pytest.fixture
def calibrate(unet, experts, tmp_path):
    return Calibration(unet, experts, tmp_path)


@pytest.mark.parametrize(
    "options", [{"method": "co_merge"}, {"method": "co_merge", "statistic": "mean"}, {"method": "regmean"}]
)
def test_cached_statistics_give_the_same_merge_without_a_pass(calibrate, experts, options):
    first, ran = calibrate(**options)
    again, ran_again = calibrate(**options)
    assert (ran, ran_again) == (True, False)
    config = MergeConfig(timesteps=1, output_rank=2, **options)
    one, two = (merge(experts, statistics, config) for statistics in (first, again))
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
    options, strengths = {"method": "co_merge"} | options, [0.5, 1.5]
    calibrate(**options)
    reused, ran = calibrate(strengths=strengths, **options)
    assert not ran
    fresh, ran = Calibration(unet, experts, tmp_path / "empty")(strengths=strengths, **options)
    assert ran
    config = MergeConfig(timesteps=1, **options)
    one, two = (merge(experts, statistics, config, strengths) for statistics in (reused, fresh))
    assert one.content_hash == two.content_hash
    assert one.metadata == two.metadata
    plain = merge(experts, reused, config)
    assert plain.content_hash != one.content_hash


def test_any_other_circumstance_needs_another_pass(calibrate, experts):
    calibrate(method="regmean")
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
        assert calibrate(**({"method": "regmean"} | change))[1], change


def test_a_damaged_entry_is_collected_again(calibrate):
    calibrate()
    (file,) = calibrate.folder.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    assert calibrate()[1]
    assert not calibrate()[1]


@pytest.mark.parametrize("method", ["co_merge", "regmean"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_statistics_that_are_not_finite_name_the_layer_or_the_pass_and_are_not_stored(
    experts, tmp_path, method, value
):
    broken = tiny_unet()
    broken.down_blocks[0].attentions[0].norm.weight[0] = value
    with pytest.raises(ValueError, match="(statistics|moments|latents) .* values are not finite"):
        Calibration(broken, experts, tmp_path)(method=method)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_stored_entry_that_is_not_finite_is_collected_again(unet, experts, tmp_path):
    calibration = Calibration(unet, experts, tmp_path)
    statistics, _ = calibration(method="regmean")
    (entry,) = tmp_path.rglob("*.safetensors")
    tensors = load_file(entry)
    with open_tensors(entry) as opened:
        metadata = dict(opened.metadata)
    next(iter(tensors.values())).view(-1)[0] = float("nan")
    save_file(tensors, entry, metadata=metadata)
    again, ran = calibration(method="regmean")
    assert ran
    assert all(
        torch.equal(*fitted)
        for module, layer in statistics.layers.items()
        for fitted in zip(layer.fitted, again.layers[module].fitted, strict=True)
    )
