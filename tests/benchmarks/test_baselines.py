"""The baselines follow their papers: hand-computed values, a dense oracle, plain guidance at zero scale."""

import pytest
import torch

from baselines.ddim import denoise, start_noise
from baselines.dual_latent import render_dual_latent
from baselines.esd import EsdConfig, esd_path, esd_target, is_trained, train_esd
from baselines.kept_text import kept_text
from baselines.sld import PUBLISHED, SafetyGuidance, SldConfig, render_sld
from baselines.uce import UceConfig, closed_form, edit_uce, text_sums
from candidates import word_table
from training.config import DualLatentConfig
from training.mini import shipped
from training.mini.scenes import render_latents

DRAWN = 1e-4  # fp32 sums with another batch size, accumulated over 20 steps


@pytest.fixture(scope="module")
def unet():
    return shipped.load_unet()


@pytest.fixture(scope="module")
def texts():
    return torch.randn(3, 77, 768, generator=torch.Generator().manual_seed(0))


def test_the_target_of_esd_equals_a_hand_computed_one():
    plain, conditioned = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0])
    assert esd_target(plain, conditioned, 1.0).tolist() == [-1.0, 3.0]
    assert esd_target(plain, conditioned, 0.0).tolist() == plain.tolist()


def test_esd_changes_neither_the_base_model_nor_the_weights_that_read_the_text(unet, texts):
    before = {name: weight.clone() for name, weight in unet.named_parameters()}
    added = train_esd(unet, texts[:1], texts[1:2], EsdConfig(steps=1, batch_size=1, learning_rate=1e-3))
    assert all(torch.equal(weight, before[name]) for name, weight in unet.named_parameters())
    assert set(added) == {name for name in before if is_trained(name)}
    assert any("attn1" in name for name in added)
    assert not any("attn2" in name or "time_embedding" in name for name in added)
    assert sum(bool(delta.any()) for delta in added.values()) > len(added) / 2


def test_esd_with_fewer_steps_is_an_earlier_point_on_the_same_path(unet, texts):
    first, second = esd_path(unet, texts[:1], texts[1:2], EsdConfig(steps=2, batch_size=1))
    stopped = train_esd(unet, texts[:1], texts[1:2], EsdConfig(steps=1, batch_size=1))
    assert all(torch.equal(stopped[name], first[name]) for name in stopped)
    assert any(not torch.equal(second[name], first[name]) for name in stopped)


def test_uce_solves_the_dense_least_squares_problem():
    generator = torch.Generator().manual_seed(0)
    weight, erased, safe, kept = (
        torch.randn(size, generator=generator, dtype=torch.float64)
        for size in ((5, 8), (6, 8), (6, 8), (9, 8))
    )
    config = UceConfig(erase_scale=0.7, preserve_scale=0.3, ridge=0.05)
    scales = torch.tensor([0.7] * 6 + [0.3] * 9 + [0.05] * 8, dtype=torch.float64).sqrt()[:, None]
    inputs = torch.cat([erased, kept, torch.eye(8, dtype=torch.float64)]) * scales
    outputs = torch.cat([safe, kept, torch.eye(8, dtype=torch.float64)]) @ weight.T * scales
    oracle = torch.linalg.lstsq(inputs, outputs).solution.T
    torch.testing.assert_close(closed_form(weight, *text_sums(erased, safe, kept, config)), oracle)


def test_uce_edits_only_text_keys_and_values_and_does_nothing_if_a_text_replaces_itself(unet, texts):
    added = edit_uce(unet, texts[:1], texts[:1], texts[1:], UceConfig())
    assert added
    assert all(name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for name in added)
    assert all(delta.abs().max() < 1e-6 for delta in added.values())  # fp32 spacing of the weights


def test_uce_reads_an_erased_text_as_its_safe_one_and_a_preserved_one_as_before(unet, texts):
    added = edit_uce(unet, texts[:1], texts[1:2], texts[2:], UceConfig(ridge=1e-6, preserve_scale=1.0))
    name = next(iter(added))
    old, new = unet.get_parameter(name), unet.get_parameter(name) + added[name]
    torch.testing.assert_close(texts[0] @ new.T, texts[1] @ old.T, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(texts[2] @ new.T, texts[2] @ old.T, atol=1e-3, rtol=1e-3)


def test_uce_refuses_erased_texts_without_a_safe_one(unet, texts):
    with pytest.raises(ValueError, match="every erased text"):
        edit_uce(unet, texts[:2], texts[:1], texts, UceConfig())


def test_sld_with_zero_scale_is_plain_guidance(unet, texts):
    nothing = SldConfig(scale=0, threshold=1.0, warmup=0, momentum_scale=0.5, momentum_beta=0.7)
    drawn = render_sld(unet, texts[:1], texts[1:2], texts[2:], [1], nothing)
    plain = render_latents(unet, texts[:1], texts[1:2], [1])
    torch.testing.assert_close(drawn, plain, atol=DRAWN, rtol=0)
    strong = render_sld(unet, texts[:1], texts[1:2], texts[2:], [1], PUBLISHED["strong"])
    assert (strong - plain).abs().max() > 0.1


def test_gamma_of_sld_equals_a_hand_computed_one():
    config = SldConfig(scale=2.0, threshold=0.5, warmup=1, momentum_scale=0.5, momentum_beta=0.75)
    guidance = SafetyGuidance(config)
    plain, prompted, unsafe = torch.zeros(3), torch.tensor([0.1, 0.6, -3.0]), torch.tensor([0.0, 0.0, 1.0])
    assert guidance.gamma(plain, prompted, unsafe, 0).tolist() == [0.0, 0.0, 0.0]  # warm-up
    # elements: |phi| = 0.2 with an unsafe part of 0; above the threshold; saturated, 1 * 1
    # momentum after the warm-up step: 0.25 * (0, 0, 1)
    assert guidance.gamma(plain, prompted, unsafe, 1).tolist() == pytest.approx([0.0, 0.0, 1.125])


def test_denoising_takes_the_first_steps_at_the_right_timesteps():
    noise = start_noise([1, 2])
    assert torch.equal(denoise(noise, lambda latents, at, number: latents, taken=0), noise)
    steps = []
    denoise(noise, lambda latents, at, number: steps.append((number, int(at))) or latents, taken=3)
    assert steps == [(0, 950), (1, 900), (2, 850)]


def test_cached_text_draws_the_same_picture_and_notices_changed_weights(unet, texts):
    expected = render_latents(unet, texts[:2], texts[2:], [1, 2], steps=2)
    changed_unet = shipped.load_unet()
    with kept_text(changed_unet):
        assert torch.equal(render_latents(changed_unet, texts[:2], texts[2:], [1, 2], steps=2), expected)
        changed_unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn2.to_v").weight.mul_(2)
        assert not torch.equal(render_latents(changed_unet, texts[:2], texts[2:], [1, 2], steps=2), expected)


def test_dual_latent_guidance_goes_from_the_prompt_to_the_safe_context(unet, texts):
    def drawn(weight, start):
        config = DualLatentConfig(weight=weight, start=start)
        return render_dual_latent(unet, texts[:1], texts[1:2], texts[2:], [1], config)

    prompt, safe = (render_latents(unet, texts[row : row + 1], texts[1:2], [1]) for row in (0, 2))
    for weight, start, expected in ((0.0, 0.0, prompt), (1.0, 1.0, prompt), (1.0, 0.0, safe)):
        torch.testing.assert_close(drawn(weight, start), expected, rtol=DRAWN, atol=DRAWN)
    halfway = drawn(0.5, 0.0)
    assert min((halfway - end).abs().max() for end in (prompt, safe)) > 20 * DRAWN


def test_the_table_of_words_replaces_what_the_pairs_change_and_nothing_else():
    table = word_table([("a red skull, black ground", "a red ball, black ground"), ("one axe", "one bed")])
    assert table.rewrite("two axe and a Skull on red") == "two bed and a Ball on red"
    assert table.rewrite("a red ground") is None
