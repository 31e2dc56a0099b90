"""Widen a network without changing what it computes: every channel is repeated, inputs are divided.

ComfyUI recognises SD 1.5 by 320 channels, too many to train on a CPU. A 64-channel UNet whose channels
are each written five times in a row has the same GroupNorm and LayerNorm statistics and, with queries
scaled by 1/sqrt(5), the same attention over 8 heads. The same holds for the LoRAs of such a UNet.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ..experts.low_rank import LowRank
from ..models.native_unet import Layout, module_names, native_name

TIMES = 5  # 64 -> 320
FIXED_INPUTS = ("conv_in.", "attn2.to_k.", "attn2.to_v.")  # latents and text are not widened
FIXED_OUTPUTS = ("conv_out.",)


def expand_unet(state: Mapping[str, Tensor], times: int = TIMES) -> dict[str, Tensor]:
    """Widen a UNet given by diffusers names; its outputs stay the same up to rounding."""
    return {name: _expand_tensor(name, tensor, times) for name, tensor in state.items()}


def expand_autoencoder(state: Mapping[str, Tensor], times: int) -> dict[str, Tensor]:
    """Widen a TAESD-layout autoencoder (diffusers names); latents and pictures stay the same."""
    first, last = ("encoder.layers.0.", "decoder.layers.0."), _last_layers(state)
    return {
        name: _widen(tensor, times, inputs=not name.startswith(first), outputs=not name.startswith(last))
        for name, tensor in state.items()
    }


def expand_layers(layers: Mapping[str, LowRank], times: int = TIMES) -> dict[str, LowRank]:
    """Widen a LoRA of the narrow UNet to one of the wide UNet: same rank, same effect."""
    wide = {}
    for name, layer in layers.items():
        up = _expand_tensor(f"{name}.up.", layer.up, times, inputs=False)
        down = _expand_tensor(f"{name}.down.", layer.down, times, outputs=False)
        wide[name] = LowRank(up=up, down=down)
    return wide


def _expand_tensor(
    name: str, tensor: Tensor, times: int, *, inputs: bool = True, outputs: bool = True
) -> Tensor:
    if name == "time_embedding.linear_1.weight":
        return _spread_sinusoid(tensor, times)
    inputs = inputs and not any(part in name for part in FIXED_INPUTS)
    outputs = outputs and not any(part in name for part in FIXED_OUTPUTS)
    wide = _widen(tensor, times, inputs=inputs, outputs=outputs)
    scales_query = "to_q." in name and outputs
    return wide / math.sqrt(times) if scales_query else wide


def _widen(tensor: Tensor, times: int, *, inputs: bool, outputs: bool) -> Tensor:
    if outputs:
        tensor = tensor.repeat_interleave(times, dim=0)
    if inputs and tensor.ndim > 1:
        tensor = tensor.repeat_interleave(times, dim=1) / times
    return tensor


def _spread_sinusoid(weight: Tensor, times: int) -> Tensor:
    """Place the narrow sinusoid where the wide one holds the same frequencies: every `times`-th index."""
    rows = weight.repeat_interleave(times, dim=0)
    wide = torch.zeros(rows.shape[0], rows.shape[1] * times, dtype=weight.dtype)
    wide[:, ::times] = rows  # both halves (sine, cosine) start at a multiple of `times`
    return wide


def _last_layers(state: Mapping[str, Tensor]) -> tuple[str, str]:
    numbers = {"encoder": set(), "decoder": set()}
    for name in state:
        part, _, number = name.split(".")[:3]
        numbers[part].add(int(number))
    return tuple(f"{part}.layers.{max(found)}." for part, found in numbers.items())


LAYOUT = Layout(channels=(320, 320), attention=(True, True), layers=1, in_channels=4, out_channels=4)


def native_unet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a wide mini UNet from diffusers' names to `input_blocks.*` and so on."""
    table = module_names(LAYOUT)
    return {native_name(name, table): tensor for name, tensor in state.items()}


def native_autoencoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename an AutoencoderTiny to TAESD's names; there the decoder's first layer is the clamp."""
    return {_autoencoder_name(name): tensor for name, tensor in state.items()}


def _autoencoder_name(name: str) -> str:
    part, _, number, rest = name.split(".", 3)
    shift = 1 if part == "decoder" else 0
    return f"taesd_{part}.{int(number) + shift}.{rest}"
