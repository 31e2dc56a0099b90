"""Operations of a training step, checked by formula on tensors without memory."""

import functools

import pytest
import torch

from flops import count_ours, count_published
from full_size import CLIP_L, TOKENS, Size, fake_mode, make_unet, without_memory
from peers import make_text_encoders, make_vae
from training.experts import adapter
from training.models.native_unet import Layout
from training.trainer.needs import CountedOperations

TINY = Size("sd15", Layout((32, 64), (True, False), 1, 4, 4), 64, ({**CLIP_L, "num_hidden_layers": 1},))


@functools.cache
def unet_tflop():
    """Count the forward passes without and with the adapter and the backward pass, for one pair."""
    with torch.device("meta"):
        unet = make_unet(TINY)
    adapter.attach_adapter(unet, rank=4, alpha=0, targets="attention", seed=0)
    counts = []
    with fake_mode():
        without_memory(unet)
        inputs = torch.zeros(2, 4, 8, 8), torch.zeros(2), torch.zeros(2, TOKENS, 768)
        with CountedOperations() as count, torch.no_grad(), adapter.reference(unet):
            unet(*inputs)
        counts.append(count.total)
        with CountedOperations() as count:
            prediction = unet(*inputs).sample
        counts.append(count.total)
        with CountedOperations() as count:
            prediction.sum().backward()
        counts.append(count.total)
    return [operations / 1e12 for operations in counts]


def encoders_tflop():
    with torch.device("meta"):
        vae, (text,) = make_vae(), make_text_encoders(TINY)
    with fake_mode(), torch.no_grad():
        without_memory(vae), without_memory(text)
        with CountedOperations() as count:
            vae.encode(torch.zeros(2, 3, TINY.pixels, TINY.pixels))
            text(torch.zeros(1, TOKENS, dtype=torch.int64))
    return count.total / 1e12


def test_our_step_is_a_forward_pass_without_the_adapter_one_with_it_and_a_backward_pass():
    assert count_ours(TINY)[0] == pytest.approx(sum(unet_tflop()), rel=1e-12)


def test_a_step_with_a_full_bank_is_a_forward_pass_with_the_adapter_and_a_backward_pass():
    assert count_ours(TINY)[1] == pytest.approx(sum(unet_tflop()[1:]), rel=1e-12)


def test_the_published_step_also_encodes_pictures_and_text():
    assert count_published(TINY) == pytest.approx(sum(unet_tflop()) + encoders_tflop(), rel=1e-12)


def test_frozen_weights_need_no_gradient():
    reference, forward, backward = unet_tflop()
    assert reference < forward < 1.1 * reference  # 6 % at this width, less at full width
    assert backward < 1.5 * forward  # it would be 2 with gradients of the weights
