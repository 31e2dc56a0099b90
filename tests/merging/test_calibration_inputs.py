"""Calibration inputs: the order of the prompts, and the everyday pictures that the base model draws."""

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
from training.merging.calibration_inputs import rounds_of, with_everyday
from training.models.conditioning import Conditioning
from training.models.ddim import draw_latents
from training.models.noise import NoiseSchedule, named_generator
from training.pairs.everyday import GUIDANCE, STEPS, everyday_prompts

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


def latents_of(files, drawn=()):
    """Stand in for a VAE: latents of pictures, those of everyday prompts as they were drawn."""
    own = {file: torch.randn(LATENT, generator=named_generator(str(file))) for file in files}
    return [(own | dict(drawn))[file] for file in files]


def inputs_of(chosen, drawn=(), **changes):
    """Encode chosen prompts; `changes` replaces attributes of the inputs."""
    inputs = CalibrationInputs(
        encoded(*chosen.prompts),
        LATENT,
        chosen.categories,
        [latents_of(files, drawn) for files in chosen.pictures],
        encoded(""),
        chosen.neutral,
    )
    return replace(inputs, **changes)


def drawn_by_hand(base, prompts, config=CONFIG):
    """Draw one picture per everyday prompt, all at once."""
    seeds = [named_generator(f"calibration/{config.seed}/everyday/{place}") for place in range(len(prompts))]
    noise = torch.stack([torch.randn(LATENT, generator=seed) for seed in seeds])
    rows = encoded(*prompts)
    return draw_latents(
        base.unet, SCHEDULE, rows, noise, empty=encoded(""), steps=STEPS, guidance=GUIDANCE
    ).unbind()


def merged(base, experts, inputs, config=CONFIG, **options):
    return merge_experts(
        experts,
        config,
        calibrate=lambda members: collect_statistics(base, inputs, members, config, **options),
    )


def test_pairs_without_neutral_prompts_merge_as_with_everyday_prompts_given_by_hand(base, experts):
    by_itself = merged(base, experts, inputs_of(calibration_prompts(PAIRS, CONFIG)))

    prompts = everyday_prompts()[: CONFIG.prompts_per_category]
    files = [Path(f"{number}.png") for number in range(len(prompts))]
    chosen = calibration_prompts(PAIRS, CONFIG, zip(prompts, files, strict=True))
    drawn = zip(files, drawn_by_hand(base, prompts), strict=True)
    by_hand = merged(base, experts, inputs_of(chosen, dict(drawn)))

    for module, layer in by_hand.layers.items():
        torch.testing.assert_close(by_itself.layers[module].delta(), layer.delta(), rtol=1e-3, atol=1e-5)
    key = "alignguard.calibration_neutral"
    assert by_itself.metadata[key] == "3 everyday prompts and 1 safe prompt of the pairs"
    assert by_hand.metadata[key] == "3 prompts of neutral.jsonl and 1 safe prompt of the pairs"
    for expert in (by_itself, by_hand):
        assert f"neutral inputs of the calibration: {expert.metadata[key]}" in expert.report()


def test_everyday_prompts_matter(base, experts):
    chosen = calibration_prompts(PAIRS, CONFIG)
    safe_only = [number for number, pictures in enumerate(chosen.pictures) if pictures]
    inputs = inputs_of(chosen)
    one, two = (merged(base, experts, which) for which in (inputs, inputs.batch(safe_only)))
    assert one.content_hash != two.content_hash


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


def test_inputs_with_all_pictures_or_with_none_are_left_as_they_are(base):
    inputs = inputs_of(calibration_prompts(PAIRS, CONFIG, [("tree", Path("tree.png"))]))
    for unchanged in (inputs, replace(inputs, pictures=None, empty=None)):
        assert with_everyday(base, unchanged, CONFIG, batch_size=4) is unchanged


def test_drawing_fills_only_the_gaps_whatever_the_batch_size_and_can_be_cancelled(base):
    inputs = inputs_of(calibration_prompts(PAIRS, CONFIG))
    one, all_at_once = (with_everyday(base, inputs, CONFIG, batch_size=size) for size in (1, 8))
    gaps = inputs.without_pictures
    assert gaps == [6, 7, 8]
    expected = drawn_by_hand(base, everyday_prompts()[:3])
    for number, (before, *after) in enumerate(
        zip(inputs.pictures, one.pictures, all_at_once.pictures, strict=True)
    ):
        for pictures in after:
            if number in gaps:
                torch.testing.assert_close(pictures[0], expected[number - 6], rtol=1e-4, atol=1e-4)
            else:
                assert pictures is before
    seen = []

    def cancel(done, total):
        seen.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with_everyday(base, inputs, CONFIG, batch_size=2, on_progress=cancel)
    assert seen == [(1, 3), (2, 3)]


def test_a_picture_cannot_be_drawn_without_the_empty_prompt():
    with pytest.raises(ValueError, match="3 prompts have no picture.*needs `empty`"):
        inputs_of(calibration_prompts(PAIRS, CONFIG), empty=None)


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


def test_cached_statistics_need_no_drawing_and_never_serve_other_inputs(base, experts, tmp_path):
    collect = Passes(base, experts, tmp_path)
    inputs = inputs_of(calibration_prompts(PAIRS, CONFIG))
    first, passes = collect(inputs)
    assert passes == 2 * STEPS + 2 * 6  # two batches of everyday pictures; six rounds at two timesteps
    again, passes = collect(replace(inputs, neutral="said otherwise"))
    assert passes == 0
    assert (first.neutral, again.neutral) == (inputs.neutral, "said otherwise")
    by_hand = list(inputs.pictures)
    by_hand[6:9] = [[picture] for picture in drawn_by_hand(base, everyday_prompts()[:3])]
    for other, changes in (
        (inputs, {"seed": 6}),
        (inputs, {"base_hash": "another"}),
        (replace(inputs, empty=encoded("another")), {}),
        (replace(inputs, prompts=encoded(*everyday_prompts()[: len(inputs.prompts)])), {}),
        (replace(inputs, pictures=by_hand), {}),
        (replace(inputs, pictures=None), {}),
    ):
        assert collect(other, **changes)[1] > 0
        assert collect(other, **changes)[1] == 0
