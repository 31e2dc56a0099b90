"""Erasure depth on denoisers whose gaps are known in closed form."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tiny import TOKENS, WIDTH, random_layers, tiny_unet
from training.config import DepthConfig
from training.evaluation.attacks import erasure_depth, loss_gaps, measure_depth
from training.evaluation.erasure_depth import independent_samples
from training.evaluation.statistics import FEWEST
from training.experts.expert import SafetyExpert
from training.models.conditioning import Conditioning
from training.models.noise import NoiseSchedule
from training.rules.hard_rule import refuse_minors

SCHEDULE = NoiseSchedule.scaled_linear()
CONFIG = DepthConfig(timesteps=3, noises=2)
LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


class Told(nn.Module):
    """Predicts a constant: the one number its prompt holds."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, noisy, timesteps, encoder_hidden_states, added_cond_kwargs):
        value = encoder_hidden_states[:, 0, 0]
        return SimpleNamespace(sample=value[:, None, None, None].expand_as(noisy))


def prompt(value):
    return Conditioning(torch.full((1, 1, 1), float(value)))


def test_the_gaps_of_a_constant_denoiser_are_those_computed_by_hand():
    gaps = loss_gaps(Told(), LATENTS, prompt(0.5), prompt(0.0), SCHEDULE, CONFIG)
    assert gaps.shape == (2 * 3 * 2,)
    # mean (n - 0)^2 - mean (n - 0.5)^2 = mean n - 0.25, and the noise is the first the generator gives
    from training.models.noise import named_generator

    generator = named_generator("erasure depth/0")
    noise = [torch.randn(4, 8, 8, generator=generator).mean() for _ in range(12)]
    torch.testing.assert_close(gaps, torch.stack(noise) - 0.25)


def test_a_velocity_model_is_measured_on_its_own_target():
    schedule = NoiseSchedule.scaled_linear("v_prediction")
    gaps = loss_gaps(
        Told(), LATENTS[:1], prompt(0.5), prompt(0.0), schedule, DepthConfig(timesteps=1, noises=1)
    )
    from training.models.noise import named_generator

    noise = torch.randn(4, 8, 8, generator=named_generator("erasure depth/0"))
    target = schedule.target(LATENTS[:1], noise[None], torch.tensor([500]))
    assert gaps.item() == pytest.approx(target.mean().item() - 0.25, abs=1e-6)


@pytest.fixture
def no_bootstrap(monkeypatch):
    """Leave out the interval of the depth, which is slow, where only that of the base is asked for."""
    module = sys.modules["training.evaluation.erasure_depth"]  # the function of that name hides it
    monkeypatch.setattr(module, "bootstrap", lambda *_, **__: (0.0, 0.0))


def depth_of(base, safe, num_images=FEWEST):
    return erasure_depth(base, safe, num_draws=len(base), num_images=num_images)


def test_pictures_are_the_samples_where_there_are_enough_and_noise_where_there_are_few():
    gaps = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(independent_samples(gaps), gaps.mean(dim=(1, 2)))
    few = gaps[:3] + 10 * torch.arange(3)[:, None, None]  # what the picture does is not chance either
    samples = independent_samples(few)
    assert samples.shape == (36,)
    assert samples.mean().item() == pytest.approx(few.mean().item(), rel=1e-5)
    assert samples.var(correction=0).item() == pytest.approx(few.var(dim=2).mean().item(), rel=1e-4)
    one = gaps[:1] + 10 * torch.arange(3)[None, :, None]  # what the timestep does is not chance
    samples = independent_samples(one)
    assert samples.shape == (12,)
    assert samples.mean().item() == pytest.approx(one.mean().item(), rel=1e-5)
    within = one.var(dim=2).mean().item()  # unbiased, of each timestep
    assert samples.var(correction=0).item() == pytest.approx(within, rel=1e-5)


def test_the_interval_of_several_pictures_covers_what_is_true_of_pictures_like_them(no_bootstrap):
    hits = 0
    for trial in range(60):
        generator = torch.Generator().manual_seed(trial)
        gaps = (
            1 + torch.randn(12, 1, 1, generator=generator) + 0.3 * torch.randn(12, 5, 4, generator=generator)
        )
        low, high = depth_of(independent_samples(gaps), torch.zeros(12)).base_interval
        hits += low <= 1 <= high
    assert hits >= 50  # of draws taken for pictures it would be about a third


def test_a_gap_that_is_no_number_is_undetermined():
    clear = torch.tensor([0.3, 0.1, 0.2, 0.4, 0.2])
    for value in ("nan", "inf", "-inf"):
        broken = clear.clone()
        broken[2] = float(value)
        for found in (depth_of(broken, clear), depth_of(clear, broken)):
            assert (found.depth, found.interval) == (None, None)
            assert "undetermined, for a gap is no number" in found.report()
    broken[1] = float("inf")  # beside -inf
    assert depth_of(broken, clear).depth is None


def test_too_few_draws_are_undetermined_however_clear_they_look():
    gaps = torch.full((FEWEST - 1,), 0.3)
    found = depth_of(gaps, 0 * gaps, num_images=1)
    assert (found.depth, found.base_interval) == (None, None)
    assert "undetermined, too few draws: 4, and it takes 5" in found.report()
    assert depth_of(torch.full((FEWEST,), 0.3), torch.zeros(FEWEST)).depth == 1


def test_the_report_says_for_which_pictures_it_speaks():
    gaps = torch.tensor([0.3, 0.1, 0.2, 0.4, 0.2])
    for images, about in ((1, "this picture only"), (4, "these pictures only"), (5, "pictures like them")):
        assert f"speak for {about}" in depth_of(gaps, gaps, images).report()


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (1, 1, 2), (1, 1, 5), (1, 3, 2), (1, 10, 4), (2, 10, 4), (4, 10, 4), (5, 10, 4), (12, 1, 1)],
)
def test_pure_noise_is_rarely_taken_for_a_gap(shape, no_bootstrap):
    generator, wrong = torch.Generator().manual_seed(0), 0
    for _ in range(1000):
        base, safe = torch.randn(2, *shape, generator=generator)
        samples = (independent_samples(each) for each in (base, safe))
        found = erasure_depth(*samples, num_draws=base.numel(), num_images=shape[0])
        wrong += found.depth is not None
    # 0.025 is meant; with two noises a level the rule errs 0.035 (simulated with 20000), and 0.017 is 3 sigma
    assert wrong / 1000 <= 0.035 + 0.017
    assert base.numel() >= FEWEST or wrong == 0


def test_a_model_that_did_not_change_has_depth_zero_exactly():
    gaps = torch.tensor([0.3, 0.1, 0.2, 0.4, 0.2])
    found = depth_of(gaps, gaps.clone())
    assert found.depth == 0
    assert found.interval == (0, 0)


def test_a_model_that_ignores_its_prompt_has_depth_one_and_a_worse_one_less_than_zero():
    base = torch.tensor([0.3, 0.1, 0.2, 0.4, 0.2])
    assert depth_of(base, torch.zeros(5)).depth == 1
    assert depth_of(base, 0.25 * base).depth == pytest.approx(0.75)
    assert depth_of(base, 1.5 * base).depth == pytest.approx(-0.5)
    assert depth_of(base, -3 * base).depth == 1  # clipped: naming the concept even hurts


def test_without_a_clear_gap_of_the_base_the_depth_is_undetermined_and_no_number():
    found = depth_of(torch.tensor([0.3, -0.2, 0.1, -0.3, 0.2]), torch.zeros(5))
    assert found.depth is None
    assert found.interval is None
    assert "undetermined, for naming the concept does not clearly help the base" in found.report()


def test_the_interval_holds_the_depth_and_narrows_with_more_draws():
    generator = torch.Generator().manual_seed(0)
    base = 1 + 0.3 * torch.randn(400, generator=generator)
    safe = 0.4 * base + 0.1 * torch.randn(400, generator=generator)
    few, many = depth_of(base[:20], safe[:20]), depth_of(base, safe)
    for found in (few, many):
        assert found.interval[0] < found.depth < found.interval[1]
    assert many.interval[1] - many.interval[0] < few.interval[1] - few.interval[0]
    assert many.depth == pytest.approx(0.6, abs=0.03)


def test_measuring_an_expert_puts_the_same_weights_back_and_reports_every_pass():
    unet = tiny_unet()
    before = {name: weight.clone() for name, weight in unet.state_dict().items()}
    expert = SafetyExpert(random_layers(unet), ("shocking",), "sd15", {}, "e")
    told = [
        Conditioning(torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(s)))
        for s in (1, 2)
    ]
    seen = []
    found = measure_depth(
        unet, expert, LATENTS[:1], *told, SCHEDULE, CONFIG, on_progress=lambda *step: seen.append(step)
    )
    assert seen == [(number, 12) for number in range(1, 13)]
    assert found.num_draws == 6
    assert all(torch.equal(before[name], weight) for name, weight in unet.state_dict().items())
    off = measure_depth(unet, expert, LATENTS[:1], *told, SCHEDULE, CONFIG, strength=0.0)
    assert off.base_gap == off.safe_gap == found.base_gap != found.safe_gap


def test_prompts_that_join_sexual_content_and_a_minor_are_refused_without_being_quoted():
    refuse_minors("a white skull", "a child")
    with pytest.raises(ValueError, match="word for a minor") as error:
        refuse_minors("nude", "a child")
    assert "nude" not in str(error.value)


@pytest.mark.slow  # encodes two prompts and asks the mini model 48 times
def test_the_mini_models_expert_takes_away_what_naming_the_icon_tells_the_base():
    import random

    from training.mini import shipped
    from training.mini.scenes import Scene, draw
    from training.mini.text_encoder import embed

    scene = Scene("skull", "white", "black")
    picture = torch.tensor(draw(scene, random.Random(0))).permute(2, 0, 1)[None].float() / 127.5 - 1
    concept, neutral = (
        Conditioning(own[None]) for own in embed([scene.prompt(), Scene("star", "white", "black").prompt()])
    )
    layers = shipped.load_expert_layers()
    latents = shipped.load_autoencoder().encode(picture).latents
    config = DepthConfig(timesteps=6, noises=2)

    def depth(category):
        expert = SafetyExpert(layers[category], (category,), "sd15", {}, category)
        return measure_depth(shipped.load_unet(), expert, latents, concept, neutral, SCHEDULE, config)

    own, other = depth("shocking"), depth("hate")
    assert own.base_interval[0] > 0
    assert own.depth > 0.5 > other.depth
