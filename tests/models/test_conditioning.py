"""Conditioning: the rows of all tensors stay together, and SDXL gets one size row per latent."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from training.models.conditioning import Conditioning, predict, size_ids

POOLED = 12


def rows(count, pooled=POOLED, seed=0):
    generator = torch.Generator().manual_seed(seed)
    text_embeds = torch.randn(count, 5, 16, generator=generator)
    return Conditioning(text_embeds, torch.randn(count, pooled, generator=generator) if pooled else None)


def equal(ours, theirs):
    return all(torch.equal(*both) for both in zip(ours.tensors, theirs.tensors, strict=True))


@pytest.fixture(scope="module")
def unet():
    """The smallest UNet that takes pooled embeddings and sizes as SDXL does."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet2DConditionModel(
            block_out_channels=(32, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=4,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=POOLED + 6 * 8,
        ).requires_grad_(False)


@pytest.mark.parametrize("pooled", [0, POOLED])
def test_embeddings_and_pooled_move_together(pooled):
    three = rows(3, pooled)
    assert len(three) == 3
    back = Conditioning.concatenate([three[1:], three[:1]])[torch.tensor([2, 0, 1])]
    assert equal(back, three)
    assert all(tensor.dtype == torch.float16 for tensor in three.to(torch.float16).tensors)


def test_a_dropped_caption_loses_its_pooled_embedding_too():
    three, empty = rows(3), rows(1, seed=1)
    mixed = three.replaced(torch.tensor([False, True, False]), empty)
    assert equal(mixed[1:2], empty)
    assert equal(mixed[0:1], three[0:1])
    assert equal(mixed[2:3], three[2:3])


@pytest.mark.parametrize("pooled", [0, POOLED])
def test_a_blend_lies_between_both_rows(pooled):
    one, other = rows(3, pooled), rows(3, pooled, seed=1)
    blended = one.blended(other, torch.tensor([0.0, 0.25, 1.0]))
    for a, b, mixed in zip(one.tensors, other.tensors, blended.tensors, strict=True):
        assert torch.equal(mixed[0], a[0])
        assert torch.allclose(mixed[1], 0.75 * a[1] + 0.25 * b[1])
        assert torch.equal(mixed[2], b[2])


def test_rows_of_unequal_length_are_not_blended():
    one = Conditioning(torch.ones(2, 5, 16), lengths=(5, 3))
    other = Conditioning(torch.zeros(2, 4, 16), lengths=(4, 3))
    blended = one.blended(other, torch.tensor([0.5, 0.5]))
    assert blended.lengths == (5, 3)
    assert torch.equal(blended.text_embeds[0], torch.ones(5, 16))
    assert torch.equal(blended.text_embeds[1, :3], torch.full((3, 16), 0.5))


def test_size_ids_are_the_picture_size_without_a_crop():
    assert size_ids(torch.zeros(3, 4, 128, 128)).tolist() == [[1024, 1024, 0, 0, 1024, 1024]] * 3
    assert size_ids(torch.zeros(1, 4, 96, 160)).tolist() == [[768, 1280, 0, 0, 768, 1280]]


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_every_row_of_a_batch_gets_its_own_pooled_embedding_and_the_sizes(unet, batch):
    noisy = torch.randn(batch, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    timesteps, conditioning = torch.arange(batch) * 100, rows(batch)
    whole = predict(unet, noisy, timesteps, conditioning)
    for row in range(batch):
        added = {
            "text_embeds": conditioning.pooled[row : row + 1],
            "time_ids": torch.tensor([[64, 64, 0, 0, 64, 64]]),
        }
        alone = unet(
            noisy[row : row + 1],
            timesteps[row],
            encoder_hidden_states=conditioning.text_embeds[row : row + 1],
            added_cond_kwargs=added,
        ).sample
        torch.testing.assert_close(whole[row : row + 1], alone)
