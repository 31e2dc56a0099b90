"""The shape of the mini UNet, narrow (64 channels, stored and trained) and wide (320, what hosts load)."""

NARROW, WIDE = 64, 320


def unet_config(channels: int) -> dict:
    """Return the diffusers UNet2DConditionModel settings: two levels of one block, text width 768."""
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
    """Return an untrained UNet of the mini shape."""
    # diffusers is imported late: a broken install must not remove the nodes
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**unet_config(channels))
