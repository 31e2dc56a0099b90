"""The mini flow under SD 3's names: what other readers of SD 3's files make of it."""

import pytest
import torch
from diffusers import AutoencoderTiny, SD3Transformer2DModel
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

from training.mini.flow import (
    CHANNELS,
    DEPTH,
    HEAD,
    REPEATS,
    TIMES,
    build_transformer,
    load_transformer,
    stored_state,
)
from training.mini.flow.checkpoint import (
    POOLED_WIDTH,
    TEXT_WIDTH,
    expand_transformer,
    native_flow_autoencoder,
    native_transformer,
)
from training.mini.recipe import seeded
from training.mini.shipped import TAESD_TIMES, load_autoencoder
from training.models.flow import SD3, flow_family_of_network


@pytest.fixture(scope="module")
def transformer():
    """A transformer none of whose weights is zero."""
    model = seeded(build_transformer, 0)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return model.requires_grad_(False)


def test_the_wide_transformer_predicts_what_the_narrow_one_does(transformer):
    generator = torch.Generator().manual_seed(2)
    latents, text, pooled = (
        torch.randn(shape, generator=generator) for shape in ((2, CHANNELS, 8, 8), (2, 9, 768), (2, 768))
    )
    inputs = latents, text, pooled, torch.tensor([10.0, 900.0])
    config = {**transformer.config, "attention_head_dim": TIMES * HEAD}
    wide = SD3Transformer2DModel.from_config(config | {"caption_projection_dim": TIMES * HEAD * DEPTH})
    wide.load_state_dict(expand_transformer(transformer.state_dict()))
    with torch.no_grad():
        expected, actual = transformer(*inputs).sample, wide(*inputs).sample
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)  # sums in another order


def test_diffusers_reads_the_native_names_back_to_the_same_tensors(transformer):
    state = transformer.state_dict()
    read = convert_sd3_transformer_checkpoint_to_diffusers(native_transformer(state))
    assert read.keys() == state.keys()
    for name, tensor in state.items():
        columns = tensor.shape[1] if tensor.ndim > 1 else None
        kept = read[name] if columns is None else read[name][:, :columns]
        assert torch.equal(kept, tensor), name


def test_columns_for_the_missing_text_encoders_are_zero(transformer):
    native = native_transformer(transformer.state_dict())
    for name, width in (("context_embedder", TEXT_WIDTH), ("y_embedder.mlp.0", POOLED_WIDTH)):
        weight = native[f"{name}.weight"]
        assert weight.shape[1] == width
        assert not weight[:, 768:].any()


def test_the_network_is_one_of_the_sd3_family(transformer):
    assert flow_family_of_network(native_transformer(transformer.state_dict())) is SD3


def test_stored_weights_come_back_with_the_position_embedding_that_is_not_stored(transformer):
    stored = stored_state(transformer)
    loaded = load_transformer({name: tensor.half() for name, tensor in stored.items()}).state_dict()
    assert loaded.keys() - stored.keys() == {"pos_embed.pos_embed"}
    assert torch.equal(loaded["pos_embed.pos_embed"], transformer.state_dict()["pos_embed.pos_embed"])
    assert all(torch.equal(loaded[name], tensor.half().float()) for name, tensor in stored.items())


def test_an_untrained_transformer_predicts_zero():
    latents, text, pooled = torch.randn(2, CHANNELS, 8, 8), torch.randn(2, 5, 768), torch.randn(2, 768)
    with torch.no_grad():
        output = build_transformer()(latents, text, pooled, torch.tensor([10.0, 900.0])).sample
    assert not output.any()


def test_sixteen_channels_hold_four_and_give_the_same_picture():
    narrow = load_autoencoder()
    native = native_flow_autoencoder(narrow.state_dict(), TAESD_TIMES)
    wide = AutoencoderTiny(latent_channels=CHANNELS)
    wide.load_state_dict(
        {name: native[_host_name(name)] for name in wide.state_dict()}
    )  # so no name is missing and every shape fits
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        latents, expected = wide.encode(pictures).latents, narrow.encode(pictures).latents
        torch.testing.assert_close(latents, expected.repeat_interleave(REPEATS, 1), atol=1e-5, rtol=1e-5)
        decoded = wide.decode(latents).sample
        torch.testing.assert_close(decoded, narrow.decode(expected).sample, atol=1e-4, rtol=1e-4)


def _host_name(name: str) -> str:
    part, _, number, rest = name.split(".", 3)
    return f"taesd_{part}.{int(number) + (part == 'decoder')}.{rest}"
