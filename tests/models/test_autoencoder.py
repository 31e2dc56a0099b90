"""Autoencoders of checkpoints give the latents the UNet sees, and agree with diffusers' own reading."""

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from training.models import FAMILIES
from training.models.autoencoder import autoencoder_from_native, kl_name

SD15 = FAMILIES["sd15"]
KL = {
    "block_out_channels": (32, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "latent_channels": 4,
}


@pytest.fixture(scope="module")
def picture():
    return torch.rand((1, 3, 16, 16), generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.fixture(scope="module")
def tiny():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoencoderTiny(encoder_block_out_channels=(16,) * 4, decoder_block_out_channels=(16,) * 4)


@pytest.fixture(scope="module")
def kl():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoencoderKL(**KL).eval()


def taesd(model, **scales):
    state = {}
    for name, tensor in model.state_dict().items():
        part, _, number, rest = name.split(".", 3)
        state[f"taesd_{part}.{int(number) + (part == 'decoder')}.{rest}"] = tensor
    return state | {name: torch.tensor(value) for name, value in scales.items()}


def original(model):
    """Rename a KL autoencoder of two levels by hand, with attention as 1x1 convolutions."""
    places = [
        ("encoder.down_blocks.0.resnets.0.", "encoder.down.0.block.0."),
        ("encoder.down_blocks.0.downsamplers.0.", "encoder.down.0.downsample."),
        ("encoder.down_blocks.1.resnets.0.", "encoder.down.1.block.0."),
        ("decoder.up_blocks.0.resnets.0.", "decoder.up.1.block.0."),
        ("decoder.up_blocks.0.resnets.1.", "decoder.up.1.block.1."),
        ("decoder.up_blocks.0.upsamplers.0.", "decoder.up.1.upsample."),
        ("decoder.up_blocks.1.resnets.0.", "decoder.up.0.block.0."),
        ("decoder.up_blocks.1.resnets.1.", "decoder.up.0.block.1."),
        ("mid_block.resnets.0.", "mid.block_1."),
        ("mid_block.resnets.1.", "mid.block_2."),
        ("mid_block.attentions.0.group_norm.", "mid.attn_1.norm."),
        ("mid_block.attentions.0.to_q.", "mid.attn_1.q."),
        ("mid_block.attentions.0.to_k.", "mid.attn_1.k."),
        ("mid_block.attentions.0.to_v.", "mid.attn_1.v."),
        ("mid_block.attentions.0.to_out.0.", "mid.attn_1.proj_out."),
        ("conv_norm_out.", "norm_out."),
        ("conv_shortcut.", "nin_shortcut."),
    ]
    state = {}
    for name, tensor in model.state_dict().items():
        renamed = name
        for ours, theirs in places:
            renamed = renamed.replace(ours, theirs)
        is_pointwise = ".attn_1." in renamed and tensor.ndim == 2
        state[renamed] = tensor[:, :, None, None] if is_pointwise else tensor
    return state


def test_the_tiny_encoder_gives_its_own_latents_where_the_scales_cancel(tiny, picture):
    encoder = autoencoder_from_native(taesd(tiny, vae_scale=0.18215, vae_shift=0.0), SD15)
    with torch.no_grad():
        assert torch.allclose(encoder.encode(picture), tiny.encode(picture).latents, atol=1e-6)


def test_scale_and_shift_of_the_tiny_encoder_act_as_in_the_host(tiny, picture):
    encoder = autoencoder_from_native(taesd(tiny, vae_scale=2.0, vae_shift=0.5), SD15)
    with torch.no_grad():
        host = tiny.encode(picture).latents / 2.0 + 0.5  # comfy/taesd/taesd.py: TAESD.encode
    assert torch.allclose(encoder.encode(picture), host * 0.18215, atol=1e-6)


def test_the_tiny_decoder_undoes_scale_and_shift(tiny, picture):
    plain = autoencoder_from_native(taesd(tiny), SD15)
    shifted = autoencoder_from_native(taesd(tiny, vae_scale=2.0, vae_shift=0.5), SD15)
    assert torch.allclose(
        plain.decode(plain.encode(picture)), shifted.decode(shifted.encode(picture)), atol=1e-5
    )


def test_the_kl_encoder_gives_the_mean_times_the_latent_scale(kl, picture):
    encoder = autoencoder_from_native(original(kl), SD15)
    with torch.no_grad():
        expected = kl.encode(picture).latent_dist.mean * 0.18215
    assert torch.equal(encoder.encode(picture), expected)
    assert torch.equal(encoder.encode(picture), encoder.encode(picture))


def test_the_kl_decoder_draws_what_the_original_draws(kl, picture):
    encoder = autoencoder_from_native(original(kl), SD15)
    with torch.no_grad():
        latents = kl.encode(picture).latent_dist.mean
        expected = kl.decode(latents).sample.clamp(-1, 1)
    assert torch.allclose(encoder.decode(latents * 0.18215), expected, atol=1e-5)


def test_kl_names_agree_with_diffusers_converter(kl):
    native = original(kl)
    theirs = convert_ldm_vae_checkpoint({f"first_stage_model.{n}": t for n, t in native.items()}, KL)
    assert {kl_name(name, 2) for name in native} == set(theirs)


def test_fp16_weights_are_encoded_in_fp32(tiny, picture):
    half = {name: tensor.half() for name, tensor in taesd(tiny).items()}
    assert autoencoder_from_native(half, SD15).encode(picture).dtype == torch.float32


def test_a_missing_tensor_is_named(tiny):
    state = taesd(tiny)
    del state["taesd_decoder.1.bias"]
    with pytest.raises(
        ValueError, match=r"tiny autoencoder does not fit: 1 tensors.*decoder\.layers\.0\.bias"
    ):
        autoencoder_from_native(state, SD15)


def test_a_checkpoint_without_autoencoder_says_so():
    with pytest.raises(ValueError, match=r"no autoencoder.*0 tensors.*with its VAE inside"):
        autoencoder_from_native({}, SD15)
