"""The networks of the mini model: narrow, as trained and stored, and wide, as hosts load them."""

from collections.abc import Mapping

import torch
from torch import Tensor

NARROW, WIDE = 64, 320
AUTOENCODER_WIDTH = 32  # half of TAESD's 64; the checkpoint doubles it exactly


def unet_config(channels: int) -> dict:
    """Return the settings of diffusers' UNet2DConditionModel: two levels of one block, text width 768."""
    return {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (channels, channels),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 768,
        "attention_head_dim": 8,  # diffusers' name for the number of heads in SD 1.5
    }


def build_unet(channels: int):
    """Return an untrained mini UNet with this number of channels."""
    # diffusers is imported late: a broken install must not remove the nodes
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**unet_config(channels))


def load_unet(state: Mapping[str, Tensor]):
    """Return a frozen mini UNet, narrow or wide, with these weights under diffusers' names."""
    with torch.device("meta"):  # skips the initial weights, which are replaced anyway
        unet = build_unet(state["conv_in.weight"].shape[0])
    unet.load_state_dict(state, assign=True)
    return unet.eval().requires_grad_(False)


def build_autoencoder(width: int):
    """Return an untrained autoencoder of TAESD's layout with `width` channels in every layer."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(encoder_block_out_channels=(width,) * 4, decoder_block_out_channels=(width,) * 4)
