"""Drawing with diffusers' schedulers, on the narrow mini model."""

from types import SimpleNamespace

import pytest
import torch

from training.mini import shipped
from training.mini.scenes import GUIDANCE, render_latents
from training.models import FAMILIES
from training.models.autoencoder import Autoencoder
from training.models.base_model import BaseModel
from training.models.conditioning import Conditioning
from training.models.diffusers_draw import SCHEDULERS, DiffusersDraw

EMBEDS = {
    name: torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(n))
    for n, name in enumerate(("", "a", "b"))
}


@pytest.fixture(scope="module")
def base():
    """Return the mini model with random text embeddings, which only make prompts differ."""
    autoencoder, no_models = Autoencoder(shipped.load_autoencoder(), 1.0), SimpleNamespace(models=())
    model = BaseModel("mini", FAMILIES["sd15"], shipped.load_unet(), autoencoder, no_models)
    model.encode_prompt = lambda text: Conditioning(EMBEDS[text])
    return model


def drawer(base, scheduler="ddim", steps=4):
    return DiffusersDraw(base, scheduler=scheduler, steps=steps, cfg=GUIDANCE + 0.0, resolution=64)


def test_ddim_draws_what_the_mini_model_draws_of_the_same_seed(base):
    latents = render_latents(base.unet, EMBEDS["a"], EMBEDS[""], [5], steps=4)
    expected = (base.autoencoder.decode(latents) + 1) / 2
    torch.testing.assert_close(
        drawer(base)("a", seed=5), expected, atol=2e-4, rtol=0
    )  # betas go there and back


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_equal_calls_draw_equally_and_other_noise_or_prompts_do_not(base, scheduler):
    draw = drawer(base, scheduler, steps=3)
    first = draw("a", seed=1)
    assert first.shape == (1, 3, 64, 64)
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(draw("a", seed=1), first)
    for other in (draw("a", seed=2), draw("b", seed=1), draw("a", seed=1, negative="b")):
        assert not torch.equal(other, first)


def test_a_prompt_drawn_again_is_not_encoded_again(base, monkeypatch):
    asked, encode = [], base.encode_prompt
    monkeypatch.setattr(base, "encode_prompt", lambda text: asked.append(text) or encode(text))
    draw = drawer(base, steps=1)
    for text in ("a", "a", "b", "a"):
        draw(text, seed=len(asked))
    assert asked == ["", "a", "b"]


def test_prompts_encoded_ahead_draw_the_same_and_are_encoded_once(base, monkeypatch):
    expected = drawer(base)("a", seed=1, negative="b")
    asked, encode = [], base.encode_prompt
    monkeypatch.setattr(base, "encode_prompt", lambda text: asked.append(text) or encode(text))
    draw = drawer(base)
    draw.encode_ahead(["a", "b", "a"], "cpu")
    assert torch.equal(draw("a", seed=1, negative="b"), expected)
    draw("b", seed=1)
    assert asked == ["", "a", "b"]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_image_to_image_stays_closer_to_its_source_the_lower_the_strength(base, scheduler):
    draw = drawer(base, scheduler, steps=8)
    source = draw("a", seed=1)
    distances = [(draw("b", seed=3, source=source, strength=s) - source).square().mean() for s in (0.13, 1.0)]
    assert distances[0] < distances[1]


def test_an_unknown_scheduler_is_refused_with_the_available_ones(base):
    with pytest.raises(ValueError, match="ddim, euler, dpmpp_2m, got 'best'"):
        drawer(base, "best")


def test_a_latent_that_is_not_finite_is_refused_at_its_timestep(base):
    broken = Conditioning(torch.full((1, 77, 768), float("nan")))
    with pytest.raises(ValueError, match=r"the latent drawn at timestep \d+: .* values are not finite"):
        drawer(base)(broken, seed=1)
