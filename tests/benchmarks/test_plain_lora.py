"""The plain LoRA layer computes the same as peft's, and the benchmark counts bytes correctly."""

import copy

import pytest
import torch

from full_size import fake_mode
from plain_lora import attach_plain, plain_reference
from tensor_bytes import LiveBytes, saved_for_backward
from tiny import TOKENS, WIDTH, tiny_unet
from training.experts import adapter

INPUTS = (
    torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)),
    torch.tensor([10, 700]),
    torch.randn(2, TOKENS, WIDTH, generator=torch.Generator().manual_seed(2)),
)


@pytest.fixture
def both():
    """Return a UNet with peft's adapter, a copy with plain layers of the same factors, and these layers."""
    with_peft = tiny_unet()
    with_plain = copy.deepcopy(with_peft)
    adapter.attach_adapter(with_peft, rank=3, alpha=0, targets="attention", seed=0)
    layers = attach_plain(with_plain, rank=3)
    for name, factor in adapter.adapter_parameters(with_peft).items():
        module, _, side = name.rpartition(".")
        if side == "up":
            torch.nn.init.normal_(factor, std=0.1, generator=torch.Generator().manual_seed(len(name)))
        getattr(layers[module], side).data = factor.detach().clone()
    return with_peft, with_plain, layers


def test_prediction_and_gradients_equal_those_of_peft(both):
    with_peft, with_plain, layers = both
    theirs, ours = with_peft(*INPUTS).sample, with_plain(*INPUTS).sample
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)  # sums in another order
    theirs.square().sum().backward()
    ours.square().sum().backward()
    for name, factor in adapter.adapter_parameters(with_peft).items():
        module, _, side = name.rpartition(".")
        torch.testing.assert_close(getattr(layers[module], side).grad, factor.grad, rtol=1e-3, atol=1e-4)


def test_a_switched_off_layer_computes_the_base_model(both):
    with_peft, with_plain, layers = both
    with torch.no_grad(), adapter.reference(with_peft), plain_reference(layers):
        assert torch.equal(with_plain(*INPUTS).sample, with_peft(*INPUTS).sample)


def test_live_bytes_count_each_storage_once_and_drop_freed_ones():
    with fake_mode():
        tensor = torch.empty(1000)
        with LiveBytes([tensor]) as live:
            assert live.now == 4000
            double = tensor * 2
            half = double[:10].view(2, 5)
            assert live.now == 8000
            del double, half
            assert live.now == 4000
            _ = (tensor + 1) + 2  # two temporaries at once, then one
            assert live.now == 8000
    assert live.peak == 12000


def test_saved_bytes_agree_with_the_formula():
    weight = torch.ones(3, 5, requires_grad=True)
    inputs = torch.ones(7, 3)
    with saved_for_backward([weight]) as saved:
        (inputs @ weight).exp().sum()  # a product saves its input, exp its result
    assert sorted(saved) == [4 * 7 * 3, 4 * 7 * 5]
