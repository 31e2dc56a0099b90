"""A trainable LoRA on a UNet: it changes nothing at first, can be switched off, read and detached."""

import pytest
import torch

from tiny import predict, random_layers, tiny_unet
from training.experts import adapter
from training.experts.lora_keys import to_peft


@pytest.fixture
def unet():
    return tiny_unet()


def attach(unet, **changes):
    return adapter.attach_adapter(
        unet, **{"rank": 3, "alpha": 0, "targets": "attention", "seed": 0} | changes
    )


def test_a_new_adapter_changes_nothing_at_all(unet):
    before = predict(unet)
    modules = attach(unet)
    assert torch.equal(predict(unet), before)
    assert modules == list(adapter.read_adapter(unet))
    assert len(modules) == len(random_layers(tiny_unet()))


def test_only_the_adapter_is_trainable_and_it_is_fp32_on_a_half_base(unet):
    attach(unet.half())
    trainable = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    assert len(trainable) == len(adapter.adapter_parameters(unet))
    assert {parameter.dtype for parameter in trainable} == {torch.float32}
    assert unet.conv_in.weight.dtype == torch.float16


def test_feed_forward_layers_are_added_on_request(unet):
    names = attach(unet, targets="attention+ff")
    assert any(name.endswith("ff.net.0.proj") for name in names)
    assert any(name.endswith("ff.net.2") for name in names)


def test_self_attention_leaves_every_layer_that_reads_the_prompt_alone(unet):
    names = attach(unet, targets="self-attention")
    assert sorted(names) == [name for name in random_layers(tiny_unet()) if ".attn1." in name]
    assert len(names) == len(random_layers(tiny_unet())) / 2


def test_the_seed_decides_the_adapter_and_the_global_random_state_is_untouched():
    state = torch.get_rng_state()
    hashes = []
    for seed in (0, 0, 1):
        unet = tiny_unet()
        attach(unet, seed=seed)
        hashes.append(adapter.initial_a_hash(unet))
    assert hashes[0] == hashes[1] != hashes[2]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("alpha", [0, 6])
def test_what_is_loaded_is_what_is_read_and_what_acts(unet, alpha):
    before, layers = predict(unet), random_layers(unet)
    attach(unet, alpha=alpha)
    adapter.load_adapter(unet, layers)
    for name, layer in adapter.read_adapter(unet).items():
        torch.testing.assert_close(layer.delta(), layers[name].delta(), rtol=1e-6, atol=1e-6)
    dense = tiny_unet()
    for name, layer in layers.items():
        dense.get_submodule(name).weight += layer.delta()
    torch.testing.assert_close(predict(unet), predict(dense), rtol=1e-4, atol=1e-5)  # two orders of summing
    assert (predict(unet) - before).abs().max() > 1e-2


def test_reference_is_the_base_model_and_comes_back_after_an_error(unet):
    before = predict(unet)
    attach(unet)
    adapter.load_adapter(unet, random_layers(tiny_unet()))
    changed = predict(unet)
    with adapter.reference(unet):
        assert torch.equal(predict(unet), before)
    with pytest.raises(ValueError, match="no timestep"), adapter.reference(unet):
        raise ValueError("no timestep")
    assert torch.equal(predict(unet), changed)


def test_detaching_gives_the_original_unet_back(unet):
    before, keys = predict(unet), list(unet.state_dict())
    attach(unet)
    adapter.load_adapter(unet, random_layers(tiny_unet()))
    adapter.detach_adapter(unet)
    assert torch.equal(predict(unet), before)
    assert list(unet.state_dict()) == keys
    assert adapter.read_adapter(unet) == {}
    adapter.detach_adapter(unet)  # nothing left to do
    attach(unet)


def test_factors_are_copies(unet):
    attach(unet)
    layers = adapter.read_adapter(unet)
    name, layer = next(iter(layers.items()))
    layer.down.zero_()
    assert adapter.read_adapter(unet)[name].down.count_nonzero() > 0


def test_the_names_are_those_of_pefts_own_files(unet):
    from peft import get_peft_model_state_dict

    attach(unet)
    keys = to_peft(adapter.read_adapter(unet)).keys()
    assert {f"base_model.model.{key}" for key in get_peft_model_state_dict(unet)} == keys


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"targets": "all"}, "targets must be one of attention, attention\\+ff, self-attention, got 'all'"),
    ],
)
def test_an_impossible_adapter_is_refused(unet, change, message):
    with pytest.raises(ValueError, match=message):
        attach(unet, **change)


def test_a_second_adapter_and_a_foreign_network_are_refused(unet):
    attach(unet)
    with pytest.raises(ValueError, match="already carries an adapter"):
        attach(unet)
    with pytest.raises(ValueError, match="no module whose path ends in"):
        attach(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_a_lora_of_other_modules_or_rank_is_refused_whole(unet):
    attach(unet)
    layers = random_layers(tiny_unet())
    before = adapter.read_adapter(unet)
    with pytest.raises(ValueError, match="in only one of them"):
        adapter.load_adapter(unet, dict(list(layers.items())[1:]))
    with pytest.raises(ValueError, match="Attach the adapter with the rank"):
        adapter.load_adapter(unet, random_layers(tiny_unet(), rank=2))
    after = adapter.read_adapter(unet)
    assert all(torch.equal(before[name].up, after[name].up) for name in before)


def test_thinning_switches_off_a_share_of_the_output_neurons_while_it_lasts(unet):
    before, layers = predict(unet), random_layers(unet)
    attach(unet)
    adapter.load_adapter(unet, layers)
    whole = predict(unet)
    with adapter.thinned(unet, 0.5, torch.Generator().manual_seed(0)):
        thinned = predict(unet)
    assert not torch.equal(thinned, whole)
    assert not torch.equal(thinned, before)
    with adapter.thinned(unet, 1e-9, torch.Generator().manual_seed(0)):
        assert torch.equal(predict(unet), before)
    assert torch.equal(predict(unet), whole)
