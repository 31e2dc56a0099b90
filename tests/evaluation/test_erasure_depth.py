"""Erasure depth on denoisers whose gaps are known in closed form."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from builders import expert_of
from tiny import TOKENS, WIDTH, random_layers, tiny_unet
from training.config import DepthConfig
from training.evaluation.erasure_depth import (
    ConceptProbe,
    erasure_depth,
    independent_samples,
    loss_gaps,
    measure_depth,
)
from training.evaluation.statistics import FEWEST
from training.models.conditioning import Conditioning
from training.models.noise import NoiseSchedule, named_generator
from training.rules.hard_rule import refuse_minors

SCHEDULE = NoiseSchedule.scaled_linear()
CONFIG = DepthConfig(timesteps=3, noises=2)
LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


class ConstantDenoiser(nn.Module):
    """Predicts a constant: the number that its prompt holds."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, noisy, timesteps, encoder_hidden_states, added_cond_kwargs):
        value = encoder_hidden_states[:, 0, 0]
        return SimpleNamespace(sample=value[:, None, None, None].expand_as(noisy))


def probe(latents):
    """Return a probe whose prompts hold 0.5 with the concept and 0 without."""
    concept, neutral = (Conditioning(torch.full((1, 1, 1), value)) for value in (0.5, 0.0))
    return ConceptProbe(latents, concept, neutral)


def test_the_gaps_of_a_constant_denoiser_are_those_computed_by_hand():
    gaps = loss_gaps(ConstantDenoiser(), probe(LATENTS), SCHEDULE, CONFIG)
    assert gaps.shape == (2 * 3 * 2,)
    # mean (n - 0)^2 - mean (n - 0.5)^2 = mean n - 0.25, and the noise is the first the generator gives
    generator = named_generator("erasure depth/0")
    noise = [torch.randn(4, 8, 8, generator=generator).mean() for _ in range(12)]
    torch.testing.assert_close(gaps, torch.stack(noise) - 0.25)


def test_a_velocity_model_is_measured_on_its_own_target():
    schedule = NoiseSchedule.scaled_linear("v_prediction")
    config = DepthConfig(timesteps=1, noises=1)
    gaps = loss_gaps(ConstantDenoiser(), probe(LATENTS[:1]), schedule, config)
    noise = torch.randn(4, 8, 8, generator=named_generator("erasure depth/0"))
    target = schedule.target(LATENTS[:1], noise[None], torch.tensor([500]))
    assert gaps.item() == pytest.approx(target.mean().item() - 0.25, abs=1e-6)


@pytest.fixture
def no_bootstrap(monkeypatch):
    """Leave out the interval of the depth, which is slow, where only that of the base is asked for."""
    monkeypatch.setattr("training.evaluation.erasure_depth.bootstrap", lambda *_, **__: (0.0, 0.0))


def depth_of(base, safe, num_images=FEWEST):
    return erasure_depth(base, safe, num_draws=len(base), num_images=num_images)


def test_pictures_are_the_samples_where_there_are_enough_and_noise_where_there_are_few():
    gaps = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(independent_samples(gaps), gaps.mean(dim=(1, 2)))
    few = gaps[:3] + 10 * torch.arange(3)[:, None, None]  # differences between pictures are not chance
    samples = independent_samples(few)
    assert samples.shape == (36,)
    assert samples.mean().item() == pytest.approx(few.mean().item(), rel=1e-5)
    assert samples.var(correction=0).item() == pytest.approx(few.var(dim=2).mean().item(), rel=1e-4)
    single = gaps[:1] + 10 * torch.arange(3)[None, :, None]  # differences between timesteps are not chance
    samples = independent_samples(single)
    assert samples.shape == (12,)
    assert samples.mean().item() == pytest.approx(single.mean().item(), rel=1e-5)
    within = single.var(dim=2).mean().item()  # unbiased, of each timestep
    assert samples.var(correction=0).item() == pytest.approx(within, rel=1e-5)


def test_the_interval_of_several_pictures_covers_the_truth_about_pictures_like_them(no_bootstrap):
    hits = 0
    for trial in range(60):
        generator = torch.Generator().manual_seed(trial)
        gaps = (
            1 + torch.randn(12, 1, 1, generator=generator) + 0.3 * torch.randn(12, 5, 4, generator=generator)
        )
        low, high = depth_of(independent_samples(gaps), torch.zeros(12)).base_interval
        hits += low <= 1 <= high
    assert hits >= 50  # of draws taken for pictures it would be about a third


def test_a_gap_that_is_nan_or_inf_is_undetermined():
    clear = torch.tensor([0.3, 0.1, 0.2, 0.4, 0.2])
    for value in ("nan", "inf", "-inf"):
        broken = clear.clone()
        broken[2] = float(value)
        for result in (depth_of(broken, clear), depth_of(clear, broken)):
            assert (result.depth, result.interval) == (None, None)
            assert "undetermined: a gap is NaN or inf" in result.report()
    broken[1] = float("inf")  # beside -inf
    assert depth_of(broken, clear).depth is None


def test_too_few_draws_are_undetermined_however_clear_they_look():
    gaps = torch.full((FEWEST - 1,), 0.3)
    result = depth_of(gaps, 0 * gaps, num_images=1)
    assert (result.depth, result.base_interval) == (None, None)
    assert "undetermined: too few draws, got 4, need at least 5" in result.report()
    assert depth_of(torch.full((FEWEST,), 0.3), torch.zeros(FEWEST)).depth == 1


def test_the_report_says_for_which_pictures_it_is_valid():
    gaps = torch.tensor([0.3, 0.1, 0.2, 0.4, 0.2])
    for images, scope in ((1, "this picture only"), (4, "these pictures only"), (5, "pictures like them")):
        assert f"valid for {scope}" in depth_of(gaps, gaps, images).report()


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (1, 1, 2), (1, 1, 5), (1, 3, 2), (1, 10, 4), (2, 10, 4), (4, 10, 4), (5, 10, 4), (12, 1, 1)],
)
def test_pure_noise_is_rarely_taken_for_a_gap(shape, no_bootstrap):
    generator, wrong = torch.Generator().manual_seed(0), 0
    for _ in range(1000):
        base, safe = torch.randn(2, *shape, generator=generator)
        samples = (independent_samples(gaps) for gaps in (base, safe))
        result = erasure_depth(*samples, num_draws=base.numel(), num_images=shape[0])
        wrong += result.depth is not None
    # 0.025 is meant; with two noises a level the rule errs 0.035 (simulated with 20000), and 0.017 is 3 sigma
    assert wrong / 1000 <= 0.035 + 0.017
    assert base.numel() >= FEWEST or wrong == 0


def test_a_model_that_did_not_change_has_depth_zero_exactly():
    gaps = torch.tensor([0.3, 0.1, 0.2, 0.4, 0.2])
    result = depth_of(gaps, gaps.clone())
    assert result.depth == 0
    assert result.interval == (0, 0)


def test_a_model_that_ignores_its_prompt_has_depth_one_and_a_larger_gap_gives_less_than_zero():
    base = torch.tensor([0.3, 0.1, 0.2, 0.4, 0.2])
    assert depth_of(base, torch.zeros(5)).depth == 1
    assert depth_of(base, 0.25 * base).depth == pytest.approx(0.75)
    assert depth_of(base, 1.5 * base).depth == pytest.approx(-0.5)
    assert depth_of(base, -3 * base).depth == 1  # clipped: naming the concept even hurts


def test_without_a_clear_gap_of_the_base_the_depth_is_undetermined():
    result = depth_of(torch.tensor([0.3, -0.2, 0.1, -0.3, 0.2]), torch.zeros(5))
    assert result.depth is None
    assert result.interval is None
    assert "undetermined: naming the concept does not clearly help the base" in result.report()


def test_the_interval_holds_the_depth_and_narrows_with_more_draws():
    generator = torch.Generator().manual_seed(0)
    base = 1 + 0.3 * torch.randn(400, generator=generator)
    safe = 0.4 * base + 0.1 * torch.randn(400, generator=generator)
    few, many = depth_of(base[:20], safe[:20]), depth_of(base, safe)
    for result in (few, many):
        assert result.interval[0] < result.depth < result.interval[1]
    assert many.interval[1] - many.interval[0] < few.interval[1] - few.interval[0]
    assert many.depth == pytest.approx(0.6, abs=0.03)


def test_measuring_an_expert_restores_the_weights_and_reports_every_pass():
    unet = tiny_unet()
    before = {name: weight.clone() for name, weight in unet.state_dict().items()}
    expert = expert_of(random_layers(unet), "shocking")
    prompts = (
        Conditioning(torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed)))
        for seed in (1, 2)
    )
    measured = ConceptProbe(LATENTS[:1], *prompts)
    seen = []
    result = measure_depth(
        unet, expert, measured, SCHEDULE, CONFIG, on_progress=lambda *step: seen.append(step)
    )
    assert seen == [(number, 12) for number in range(1, 13)]
    assert result.num_draws == 6
    assert all(torch.equal(before[name], weight) for name, weight in unet.state_dict().items())
    off = measure_depth(unet, expert, measured, SCHEDULE, CONFIG, strength=0.0)
    assert off.base_gap == off.safe_gap == result.base_gap != result.safe_gap


def test_prompts_that_join_sexual_content_and_a_minor_are_refused_without_being_quoted():
    refuse_minors("a white skull", "a child")
    with pytest.raises(ValueError, match="word for a minor") as error:
        refuse_minors("nude", "a child")
    assert "nude" not in str(error.value)


@pytest.mark.slow  # encodes two prompts and asks the mini model 48 times
def test_the_mini_models_expert_removes_the_help_of_naming_its_icon_and_another_expert_does_not():
    import random

    from training.mini import shipped
    from training.mini.scenes import Scene, draw
    from training.mini.text_encoder import embed

    scene = Scene("skull", "white", "black")
    picture = torch.tensor(draw(scene, random.Random(0))).permute(2, 0, 1)[None].float() / 127.5 - 1
    texts = [scene.prompt(), Scene("star", "white", "black").prompt()]
    layers = shipped.load_expert_layers()
    latents = shipped.load_autoencoder().encode(picture).latents
    measured = ConceptProbe(latents, *(Conditioning(row[None]) for row in embed(texts)))
    config = DepthConfig(timesteps=6, noises=2)

    def depth(category):
        expert = expert_of(layers[category], category)
        return measure_depth(shipped.load_unet(), expert, measured, SCHEDULE, config)

    shocking, hate = depth("shocking"), depth("hate")
    assert shocking.base_interval[0] > 0
    assert shocking.depth > 0.5 > hate.depth
