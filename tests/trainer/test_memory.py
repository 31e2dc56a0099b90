"""Gradient checkpointing: which blocks a mode chooses, and that no result depends on the mode."""

import dataclasses

import pytest
from diffusers import UNet2DConditionModel

from tiny import tiny_unet
from tiny_runs import SMALL, equal_layers, run
from training.models.network import MODES, set_checkpointing


def checkpointed(unet):
    return {name for name, module in unet.named_modules() if getattr(module, "gradient_checkpointing", False)}


def test_selective_chooses_the_levels_down_to_the_first_with_attention():
    unet = tiny_unet()
    set_checkpointing(unet, "selective")
    assert {name.split(".attentions")[0] for name in checkpointed(unet)} == {"down_blocks.0", "up_blocks.1"}
    like_sdxl = UNet2DConditionModel(
        block_out_channels=(32, 32, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
    )
    set_checkpointing(like_sdxl, "selective")
    blocks = {".".join(name.split(".")[:2]) for name in checkpointed(like_sdxl)}
    assert blocks == {"down_blocks.0", "down_blocks.1", "up_blocks.1", "up_blocks.2"}


def test_none_chooses_no_block_and_full_chooses_all():
    unet = tiny_unet()
    set_checkpointing(unet, "full")
    full = checkpointed(unet)
    set_checkpointing(unet, "none")
    assert {"down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"} <= full
    assert checkpointed(unet) == set()
    with pytest.raises(ValueError, match="checkpointing must be one of none, selective, full, got 'some'"):
        set_checkpointing(unet, "some")


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_run_is_the_same_bit_for_bit_under_every_mode(mode):
    # with row dropout, because a recomputed block must drop the same rows
    config = dataclasses.replace(SMALL, steps=2, precision="bf16", row_dropout=0.5)
    unet = tiny_unet()
    plain = run(dataclasses.replace(config, checkpointing="none"), unet=unet)
    other = run(dataclasses.replace(config, checkpointing=mode), unet=unet)
    assert other.losses == plain.losses
    assert equal_layers(other, plain)
    assert checkpointed(unet) == set()  # it comes back as it was
