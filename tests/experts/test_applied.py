"""An expert applied to a UNet within a context: its update is added, then the weights are restored."""

import logging

import pytest
import torch

from builders import expert_of
from tiny import random_layers, tiny_unet
from training.experts.applied import applied_expert
from training.experts.low_rank import LowRank


def weights(unet):
    return {name: value.clone() for name, value in unet.state_dict().items()}


def test_the_update_is_added_with_its_strength_and_removed_bit_for_bit():
    unet = tiny_unet()
    before, expert = weights(unet), expert_of(random_layers(unet))
    with applied_expert(unet, expert, 0.5):
        for name, layer in expert.layers.items():
            expected = before[f"{name}.weight"] + 0.5 * layer.delta()
            torch.testing.assert_close(unet.get_submodule(name).weight, expected)
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())


@pytest.mark.parametrize("factor", [1e4, 1e30])
def test_an_absurd_update_in_memory_is_refused_before_it_touches_a_weight(factor):
    unet = tiny_unet()
    before, layers = weights(unet), random_layers(unet)
    (name, layer), *_ = layers.items()
    with (
        pytest.raises(ValueError, match=rf"^absurd changes every weight of {name} by "),
        applied_expert(unet, expert_of(layers | {name: layer.scaled(factor)}, name="absurd"), 1.0),
    ):
        raise AssertionError("the body must not run")
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())


def test_a_convolution_is_changed_too():
    unet = tiny_unet()
    weight = unet.conv_in.weight.clone()  # (32, 4, 3, 3)
    layer = LowRank(torch.ones(32, 1), torch.arange(36.0)[None] / 10)
    with applied_expert(unet, expert_of({"conv_in": layer}), 1.0):
        torch.testing.assert_close(unet.conv_in.weight - weight, layer.delta().reshape(32, 4, 3, 3))


def test_the_weights_come_back_after_an_error_and_keep_their_type():
    unet = tiny_unet().half()
    before, expert = weights(unet), expert_of(random_layers(unet))

    def broken():
        with applied_expert(unet, expert, 1.0):
            assert unet.get_submodule(next(iter(expert.layers))).weight.dtype == torch.float16
            raise InterruptedError

    with pytest.raises(InterruptedError):
        broken()
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())


def test_layers_the_model_lacks_are_named_and_an_expert_without_any_match_is_refused(caplog):
    unet = tiny_unet()
    layers = random_layers(unet)
    alien = {
        "mid_block.attentions.7.transformer_blocks.0.attn1.to_q": LowRank(torch.ones(4, 1), torch.ones(1, 4))
    }
    with caplog.at_level(logging.WARNING), applied_expert(unet, expert_of(layers | alien), 1.0):
        pass
    assert "attentions.7" in caplog.text
    with pytest.raises(ValueError, match="0 of 1 layers"), applied_expert(unet, expert_of(alien), 1.0):
        pass
