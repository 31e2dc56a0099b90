"""Calibration inputs: the order of the prompts, what the base model sees of them, and the cache."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from builders import expert_of, preference_pair
from tiny import random_layers, tiny_unet
from training.config import MergeConfig
from training.merging import (
    BaseNetwork,
    CalibrationInputs,
    Members,
    StatisticsStore,
    calibration_prompts,
    collect_statistics,
    merge_experts,
)
from training.merging.calibration_inputs import base_passes, rounds_of
from training.models.conditioning import Conditioning
from training.models.noise import NoiseSchedule, named_generator
from training.pairs.everyday import everyday_prompts

LATENT, TOKENS, WIDTH = (4, 8, 8), 7, 16
PAIRS = [preference_pair(i, (name,), f"unsafe {i}") for i, name in enumerate(("hate", "hate", "violence"))]
CONFIG = MergeConfig(method="regmean", timesteps=2, prompts_per_category=3, seed=5)
SCHEDULE = NoiseSchedule.scaled_linear()


def test_a_round_holds_one_prompt_of_each_category():
    assert rounds_of(5, ["a", "a", "b", "b", ""], 0) == [[0, 2, 4], [1, 3]]


def test_prompts_of_unknown_categories_are_shuffled_and_the_seed_repeats_it():
    rounds = rounds_of(20, None, 3)
    assert [len(numbers) for numbers in rounds] == [8, 8, 4]
    flat = [number for numbers in rounds for number in numbers]
    assert sorted(flat) == list(range(20)) != flat
    assert rounds == rounds_of(20, None, 3) != rounds_of(20, None, 4)


@pytest.fixture(scope="module")
def base():
    return BaseNetwork(tiny_unet(), SCHEDULE, "base")


@pytest.fixture(scope="module")
def experts(base):
    return [
        expert_of(random_layers(base.unet, seed=seed), name) for seed, name in enumerate(("hate", "violence"))
    ]


def encoded(*prompts):
    """Stand in for a text encoder: one random row per prompt, the same for the same prompt."""
    rows = [torch.randn(TOKENS, WIDTH, generator=named_generator(prompt)) for prompt in prompts]
    return Conditioning(torch.stack(rows))


def latents_of(files):
    """Stand in for a VAE: a random latent per picture, the same for the same picture."""
    return [torch.randn(LATENT, generator=named_generator(str(file))) for file in files]


def inputs_of(chosen, **changes):
    """Encode chosen prompts; `changes` replaces attributes of the inputs."""
    inputs = CalibrationInputs(
        encoded(*chosen.prompts),
        LATENT,
        chosen.categories,
        [latents_of(files) for files in chosen.pictures],
        chosen.neutral,
    )
    return replace(inputs, **changes)


def merged(base, experts, inputs, config=CONFIG, **options):
    return merge_experts(
        experts,
        config,
        calibrate=lambda members: collect_statistics(base, inputs, members, config, **options),
    )


def test_the_expert_says_what_the_neutral_inputs_were(base, experts):
    users = [("tree", Path("tree.png"))]
    alone, beside = (
        merged(base, experts, inputs_of(calibration_prompts(PAIRS, CONFIG, neutral)))
        for neutral in ((), users)
    )
    key = "alignguard.calibration_neutral"
    everyday = "12 everyday prompts and 1 safe prompt of the pairs"  # the pairs share no word
    assert alone.metadata[key] == everyday
    assert beside.metadata[key] == f"1 prompt of neutral.jsonl and {everyday}"
    assert alone.content_hash != beside.content_hash
    for expert in (alone, beside):
        assert f"neutral inputs of the calibration: {expert.metadata[key]}" in expert.report()


def test_everyday_prompts_matter(base, experts):
    chosen = calibration_prompts(PAIRS, CONFIG)
    others = [number for number, prompt in enumerate(chosen.prompts) if prompt not in everyday_prompts()]
    inputs = inputs_of(chosen)
    one, two = (merged(base, experts, which) for which in (inputs, inputs.batch(others)))
    assert one.content_hash != two.content_hash


def seen_by(base, inputs, numbers, **changes):
    """Return (latents, timesteps) of each pass that the UNet takes on these prompts."""
    passes = []
    handle = base.unet.register_forward_pre_hook(lambda _, args: passes.append(args[:2]))
    try:
        list(base_passes(base, inputs.batch(numbers), numbers, replace(CONFIG, **changes)))
    finally:
        handle.remove()
    return passes


def test_prompts_with_pictures_take_one_pass_and_share_the_noise_levels(base):
    inputs = inputs_of(calibration_prompts(PAIRS, CONFIG))
    ((_, timesteps),) = seen_by(base, inputs, list(range(12)), timesteps=3)
    assert [int(timestep) * 3 // 1000 for timestep in timesteps] == [2, 1, 0] * 4
    assert len(timesteps.unique()) > 6  # not a grid
    assert inputs.num_passes(CONFIG) == 1


def test_the_pictures_of_a_prompt_take_turns_and_are_noised_as_in_training(base):
    inputs = inputs_of(calibration_prompts(PAIRS, CONFIG))
    two = [torch.zeros(LATENT), torch.ones(LATENT)]
    inputs = replace(inputs, pictures=[two] * len(inputs.prompts))
    ((noisy, timesteps),) = seen_by(base, inputs, list(range(8)), timesteps=2)
    for number in range(8):
        generator = named_generator(f"calibration/{CONFIG.seed}/{number}")
        torch.randint(0, 500, (), generator=generator)
        noise = torch.randn(LATENT, generator=generator)
        alpha = SCHEDULE.alphas_cumprod[timesteps[number]]
        expected = alpha.sqrt() * two[number // 2 % 2] + (1 - alpha).sqrt() * noise
        torch.testing.assert_close(noisy[number], expected)


def test_prompts_without_pictures_are_drawn_in_as_many_passes_as_there_are_noise_levels(base):
    inputs = inputs_of(calibration_prompts(PAIRS, CONFIG), pictures=None)
    passes = seen_by(base, inputs, [0, 1], timesteps=3)
    assert len(passes) == inputs.num_passes(replace(CONFIG, timesteps=3)) == 3


def test_co_merge_takes_no_neutral_prompts_and_states_none(base, experts):
    config = replace(CONFIG, method="co_merge")
    users = [("tree", Path("tree.png"))]
    alone, beside = (
        merged(base, experts, inputs_of(calibration_prompts(PAIRS, config, neutral)), config)
        for neutral in ((), users)
    )
    assert alone.content_hash == beside.content_hash
    assert alone.metadata == beside.metadata
    assert "alignguard.calibration_neutral" not in alone.metadata
    assert "neutral inputs" not in alone.report()


class Passes:
    """Collects with a store, and counts how often the model ran."""

    def __init__(self, base, experts, folder):
        self.base, self.members, self.store = base, Members.of(experts), StatisticsStore(folder)

    def __call__(self, inputs, **changes):
        calls = []
        handle = self.base.unet.register_forward_pre_hook(lambda *_: calls.append(1))
        try:
            base = self.base._replace(weights_hash=changes.pop("base_hash", "base"))
            config = replace(CONFIG, **changes)
            statistics = collect_statistics(base, inputs, self.members, config, store=self.store)
        finally:
            handle.remove()
        return statistics, len(calls)


def test_cached_statistics_need_no_pass_and_never_serve_other_inputs(base, experts, tmp_path):
    collect = Passes(base, experts, tmp_path)
    inputs = inputs_of(calibration_prompts(PAIRS, CONFIG))
    first, passes = collect(inputs)
    assert passes > 0
    again, passes = collect(replace(inputs, neutral="said otherwise"))
    assert passes == 0
    assert (first.neutral, again.neutral) == (inputs.neutral, "said otherwise")
    others = [latents_of([f"another {number}"]) for number in range(len(inputs.prompts))]
    for other, changes in (
        (inputs, {"seed": 6}),
        (inputs, {"base_hash": "another"}),
        (replace(inputs, prompts=encoded(*everyday_prompts()[: len(inputs.prompts)])), {}),
        (replace(inputs, pictures=others), {}),
        (replace(inputs, pictures=None), {}),
    ):
        assert collect(other, **changes)[1] > 0
        assert collect(other, **changes)[1] == 0
