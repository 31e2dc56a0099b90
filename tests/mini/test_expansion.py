"""The wide mini model computes the same as the narrow mini model."""

import pytest
import torch

from training.experts.low_rank import LowRank
from training.mini.architecture import (
    AUTOENCODER_WIDTH,
    NARROW,
    WIDE,
    build_autoencoder,
    build_unet,
    load_unet,
)
from training.mini.expand import expand_autoencoder, expand_layers, expand_unet
from training.mini.large.shipped import LARGE
from training.mini.shipped import SMALL

TOLERANCE = 1e-5  # fp32 sums of five times as many terms, on outputs of size 1
TRAINED_TOLERANCE = 1e-4  # activations of trained weights are larger, and so is their rounding
HALF_TOLERANCE = 2e-4  # mean difference; fp16 rounds each weight by up to 2^-11 of itself


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 4, 8, 8, generator=generator)
    return latents, torch.tensor([3, 500, 999]), torch.randn(3, 77, 768, generator=generator)


@pytest.fixture(scope="module")
def narrow():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_unet(NARROW).requires_grad_(False)


@pytest.fixture(scope="module")
def wide(narrow):
    unet = load_unet(expand_unet(narrow.state_dict()))
    assert unet.config.block_out_channels[0] == WIDE
    return unet


@pytest.fixture(scope="module")
def expected(narrow, inputs):
    """Return the prediction of the narrow UNet."""
    return narrow(*inputs).sample


def test_wide_unet_predicts_the_same_noise(wide, inputs, expected):
    assert expected.abs().mean() > 0.01  # an all-zero output would pass any comparison
    torch.testing.assert_close(wide(*inputs).sample, expected, atol=TOLERANCE, rtol=0)


def test_half_precision_storage_costs_little(wide, inputs, expected):
    stored = load_unet({name: tensor.half().float() for name, tensor in wide.state_dict().items()})
    difference = stored(*inputs).sample - expected
    assert difference.abs().mean() < HALF_TOLERANCE


@pytest.mark.parametrize("weights", [SMALL, LARGE], ids=lambda weights: weights.world)
def test_the_shipped_unet_predicts_the_same_noise_when_widened(weights, inputs):
    unet = weights.load_unet()
    predicted = unet(*inputs).sample
    assert predicted.abs().mean() > 0.1
    widened = load_unet(expand_unet(unet.state_dict()))(*inputs).sample
    torch.testing.assert_close(widened, predicted, atol=TRAINED_TOLERANCE, rtol=0)


def test_expanded_lora_has_the_effect_of_the_narrow_lora(narrow, wide, inputs, expected):
    layers = _random_lora(narrow)
    latents, timesteps, text = inputs
    exact = (latents.double(), timesteps, text.double())  # with a LoRA, fp32 sums differ by more than 1e-5
    with_lora = _with_lora(narrow, layers).double()(*exact).sample
    assert (with_lora - expected).abs().max() > 1e-3
    actual = _with_lora(wide, expand_layers(layers)).double()(*exact).sample
    torch.testing.assert_close(actual, with_lora, atol=TOLERANCE, rtol=0)


def test_expanded_autoencoder_gives_the_same_latents_and_pictures(inputs):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        narrow = build_autoencoder(AUTOENCODER_WIDTH).requires_grad_(False)
    wide = build_autoencoder(2 * AUTOENCODER_WIDTH).requires_grad_(False)
    wide.load_state_dict(expand_autoencoder(narrow.state_dict(), 2))
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    torch.testing.assert_close(
        wide.encode(pictures).latents, narrow.encode(pictures).latents, atol=TOLERANCE, rtol=0
    )
    decoded = narrow.decode(inputs[0]).sample
    torch.testing.assert_close(wide.decode(inputs[0]).sample, decoded, atol=TOLERANCE, rtol=0)


def _random_lora(unet) -> dict[str, LowRank]:
    generator = torch.Generator().manual_seed(2)
    layers = {}
    for name, module in unet.named_modules():
        if name.endswith(("to_q", "to_k", "to_v", "to_out.0")):
            d_out, d_in = module.weight.shape
            up = torch.randn(d_out, 4, generator=generator) * 0.1
            layers[name] = LowRank(up=up, down=torch.randn(4, d_in, generator=generator) * 0.1)
    return layers


def _with_lora(unet, layers):
    state = dict(unet.state_dict())
    for name, layer in layers.items():
        state[f"{name}.weight"] = state[f"{name}.weight"] + layer.delta()
    return load_unet(state)
