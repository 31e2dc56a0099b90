"""Guidance towards a safe context: what the blend is, and what a relieved prompt has left of a concept."""

import pytest
import torch

from builders import seeded
from training.config import DualLatentConfig
from training.evaluation.attacks import ConceptPair, concept_direction, stressed
from training.guards.dual_latent import blended, relieved
from training.models.conditioning import Conditioning

WORDS = {
    word: torch.randn(3, 4, generator=seeded(number))
    for number, word in enumerate("a red skull star".split())
}
ALPHAS = torch.linspace(0.999, 0.05, 1000).double()  # alphas_cumprod of a made-up schedule


def encode(prompt):
    embeds = sum(WORDS[word] for word in prompt.split())[None]
    return Conditioning(embeds, embeds[:, 0])


DIRECTION = concept_direction(
    [ConceptPair("a red skull", "a red star"), ConceptPair("skull", "star")], encode
)


def two_predictions():
    return torch.randn(2, 2, 4, 8, 8, generator=seeded(9), dtype=torch.float64)


# blend


def test_the_ends_of_the_weight_are_the_predictions_themselves():
    prompt, safe = two_predictions()
    assert blended(prompt, safe, 0) is prompt
    assert blended(prompt, safe, 1) is safe
    torch.testing.assert_close(blended(prompt, safe, 0.25), 0.75 * prompt + 0.25 * safe)


def test_blending_before_guidance_equals_blending_both_guided_predictions():
    prompt, safe = two_predictions()
    plain = torch.randn(prompt.shape, generator=seeded(1), dtype=torch.float64)

    def guide(conditional):
        return plain + 7.5 * (conditional - plain)

    torch.testing.assert_close(
        guide(blended(prompt, safe, 0.4)), blended(guide(prompt), guide(safe), 0.4), rtol=1e-12, atol=1e-12
    )


def euler(latents, noise, sigma=9.0, sigma_next=6.0):
    return latents + (sigma_next - sigma) * noise


def ddim(latents, noise, now=700, then=650):
    clean = (latents - (1 - ALPHAS[now]).sqrt() * noise) / ALPHAS[now].sqrt()
    return ALPHAS[then].sqrt() * clean + (1 - ALPHAS[then]).sqrt() * noise


def squared(latents, noise):
    return latents - noise.square()


@pytest.mark.parametrize(("step", "is_affine"), [(euler, True), (ddim, True), (squared, False)])
def test_a_step_of_the_blend_is_the_blend_of_the_steps_where_the_step_is_affine(step, is_affine):
    prompt, safe = two_predictions()
    latents = torch.randn(prompt.shape, generator=seeded(2), dtype=torch.float64)
    of_blend = step(latents, blended(prompt, safe, 0.4))
    blend_of = blended(step(latents, prompt), step(latents, safe), 0.4)
    assert torch.allclose(of_blend, blend_of, rtol=1e-10, atol=1e-10) == is_affine


# relieved prompts


def level(conditioning):
    """Return how far each row lies along the concept, (tokens,), with prompts without it at 0."""
    direction, lacking = (part.text_embeds[0] for part in (DIRECTION.conditioning, DIRECTION.lacking))
    return ((conditioning.text_embeds[0] - lacking) * direction).sum(-1) / direction.square().sum(-1)


def test_a_prompt_with_the_concept_ends_where_the_prompts_without_it_lie():
    pushed = stressed(encode("a red skull"), DIRECTION, 5.0)
    assert (level(pushed) > 1).all()
    torch.testing.assert_close(level(relieved(pushed, DIRECTION)), torch.zeros(3), atol=1e-5, rtol=0)


def test_how_far_a_prompt_was_pushed_makes_no_difference():
    near, far = (relieved(stressed(encode("a red skull"), DIRECTION, eta), DIRECTION) for eta in (5, 8))
    torch.testing.assert_close(near.text_embeds, far.text_embeds, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(near.pooled, far.pooled, atol=1e-4, rtol=1e-4)


def test_what_a_prompt_has_beside_the_concept_stays():
    moved = encode("a red skull").text_embeds - relieved(encode("a red skull"), DIRECTION).text_embeds
    cosine = torch.cosine_similarity(moved, DIRECTION.conditioning.text_embeds, dim=-1)[0]
    assert all(abs(float(one) - 1) < 1e-4 or not moved[0, row].any() for row, one in enumerate(cosine))


def test_a_concept_that_stands_at_two_places_is_taken_out_of_both():
    """With a direction as a whole, half of it would stay at the place where a prompt has it."""
    skull, star, other = (torch.eye(3)[number] for number in range(3))
    wordings = {
        "first": (torch.stack([skull, other]), torch.stack([star, other])),
        "second": (torch.stack([other, skull]), torch.stack([other, star])),
    }
    rows = {
        f"{name} {half}": rows
        for name, pair in wordings.items()
        for half, rows in zip("+-", pair, strict=True)
    }
    pairs = [ConceptPair(f"{name} +", f"{name} -") for name in wordings]
    direction = concept_direction(pairs, lambda prompt: Conditioning(rows[prompt][None]))
    left = relieved(Conditioning(rows["first +"][None]), direction).text_embeds[0]
    assert float(left[0] @ skull) == pytest.approx(0.25)


def test_a_prompt_below_the_neutral_ones_stays_as_it_is():
    push = DIRECTION.conditioning
    below = Conditioning(
        DIRECTION.lacking.text_embeds - push.text_embeds, DIRECTION.lacking.pooled - push.pooled
    )
    assert torch.equal(relieved(below, DIRECTION).text_embeds, below.text_embeds)
    assert torch.equal(relieved(below, DIRECTION).pooled, below.pooled)


def test_rows_are_relieved_each_by_its_own_and_keep_their_type():
    rows = Conditioning.concatenate([encode("a red skull"), encode("a red star")])
    both = relieved(rows, DIRECTION).text_embeds
    for row, prompt in zip(both, ("a red skull", "a red star"), strict=True):
        torch.testing.assert_close(row[None], relieved(encode(prompt), DIRECTION).text_embeds)
    assert relieved(Conditioning(rows.text_embeds.half()), DIRECTION).text_embeds.dtype == torch.float16
    assert relieved(Conditioning(rows.text_embeds), DIRECTION).pooled is None


def test_a_direction_of_another_encoder_is_refused():
    with pytest.raises(ValueError, match="77 tokens x 5, but the direction of the concept has 3 tokens x 4"):
        relieved(Conditioning(torch.zeros(1, 77, 5)), DIRECTION)


def test_the_direction_knows_the_mean_of_the_prompts_without_the_concept():
    mean = (encode("a red star").text_embeds + encode("star").text_embeds) / 2
    torch.testing.assert_close(DIRECTION.lacking.text_embeds, mean)
    torch.testing.assert_close(DIRECTION.lacking.pooled, mean[:, 0])


@pytest.mark.parametrize("field", ["weight", "start"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_share_outside_its_range_is_refused_by_its_name(field, value):
    with pytest.raises(ValueError, match=field):
        DualLatentConfig(**{field: value})
