"""The mini model under the names of the original Stable Diffusion code, which checkpoint files use."""

import re
from collections.abc import Mapping

from torch import Tensor

LAYERS_PER_BLOCK = 1  # of the mini UNet, see architecture.py
_FIXED = {
    "conv_in.": "input_blocks.0.0.",
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "mid_block.resnets.0.": "middle_block.0.",
    "mid_block.attentions.0.": "middle_block.1.",
    "mid_block.resnets.1.": "middle_block.2.",
}
_RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "time_emb_proj.": "emb_layers.1.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "conv_shortcut.": "skip_connection.",
}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(?:conv\.)?")


def native_unet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a mini UNet from diffusers' names to `input_blocks.*`, `middle_block.*`, `output_blocks.*`."""
    return {_unet_name(name): tensor for name, tensor in state.items()}


def native_autoencoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename an AutoencoderTiny to TAESD's names; there the decoder's first layer is the clamp."""
    return {_autoencoder_name(name): tensor for name, tensor in state.items()}


def _unet_name(name: str) -> str:
    for ours, theirs in _FIXED.items():
        if name.startswith(ours):
            rest = name.removeprefix(ours)
            return theirs + (_resnet_name(rest) if ours.startswith("mid_block.resnets") else rest)
    match = _BLOCK.match(name)
    side, level, kind, layer = match[1], int(match[2]), match[3], int(match[4])
    rest = name[match.end() :]
    if side == "down":
        number = 1 + level * (LAYERS_PER_BLOCK + 1) + layer
        place = {"resnets": "0.", "attentions": "1.", "downsamplers": "0.op."}[kind]
        number += LAYERS_PER_BLOCK if kind == "downsamplers" else 0
        return f"input_blocks.{number}.{place}" + (_resnet_name(rest) if kind == "resnets" else rest)
    number = level * (LAYERS_PER_BLOCK + 1) + layer
    place = {"resnets": "0.", "attentions": "1.", "upsamplers": "2.conv."}[kind]
    number += LAYERS_PER_BLOCK if kind == "upsamplers" else 0
    return f"output_blocks.{number}.{place}" + (_resnet_name(rest) if kind == "resnets" else rest)


def _resnet_name(rest: str) -> str:
    for ours, theirs in _RESNET.items():
        if rest.startswith(ours):
            return theirs + rest.removeprefix(ours)
    raise ValueError(f"{rest!r} is not a part of a residual block.")


def _autoencoder_name(name: str) -> str:
    part, _, number, rest = name.split(".", 3)
    shift = 1 if part == "decoder" else 0
    return f"taesd_{part}.{int(number) + shift}.{rest}"
