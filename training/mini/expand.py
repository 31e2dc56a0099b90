"""Turn the narrow networks into the wide networks of a checkpoint, which compute the same.

ComfyUI recognises SD 1.5 by its 320 channels, too many to train on a CPU. If each channel of a 64-channel
UNet is repeated five times in a row, and the weights are divided by five on the input side, GroupNorm and
LayerNorm see the same statistics and, with queries scaled by 1/sqrt(5), attention over 8 heads gives the same
result. The same holds for LoRAs of the UNet. The wide networks are then given the names of a checkpoint.
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
WIDE_LAYOUT = Layout(channels=(320, 320), attention=(True, True), layers=1, in_channels=4, out_channels=4)


def expand_unet(state: Mapping[str, Tensor], times: int = TIMES) -> dict[str, Tensor]:
    """Widen a UNet (diffusers' names); its outputs stay the same up to rounding."""
    return {name: _expand_tensor(name, tensor, times) for name, tensor in state.items()}


def expand_autoencoder(state: Mapping[str, Tensor], times: int) -> dict[str, Tensor]:
    """Widen an autoencoder of TAESD's layout (diffusers' names); latents and pictures stay the same."""
    first, last = ("encoder.layers.0.", "decoder.layers.0."), _last_layers(state)
    return {
        name: widen(tensor, times, inputs=not name.startswith(first), outputs=not name.startswith(last))
        for name, tensor in state.items()
    }


def expand_layers(layers: Mapping[str, LowRank], times: int = TIMES) -> dict[str, LowRank]:
    """Widen a LoRA of the narrow UNet to a LoRA of the wide UNet with the same rank and effect."""
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
    wide = widen(tensor, times, inputs=inputs, outputs=outputs)
    scales_query = "to_q." in name and outputs
    return wide / math.sqrt(times) if scales_query else wide


def widen(tensor: Tensor, times: int, *, inputs: bool, outputs: bool) -> Tensor:
    """Repeat each output `times` times, and each input whose weights are divided by as much."""
    if outputs:
        tensor = tensor.repeat_interleave(times, dim=0)
    if inputs and tensor.ndim > 1:
        tensor = tensor.repeat_interleave(times, dim=1) / times
    return tensor


def _spread_sinusoid(weight: Tensor, times: int) -> Tensor:
    """Place the narrow sinusoid where the wide one has the same frequencies: at every `times`-th index."""
    rows = weight.repeat_interleave(times, dim=0)
    wide = torch.zeros(rows.shape[0], rows.shape[1] * times, dtype=weight.dtype)
    wide[:, ::times] = rows  # both halves (sine, cosine) start at a multiple of `times`
    return wide


def _last_layers(state: Mapping[str, Tensor]) -> tuple[str, str]:
    numbers = {"encoder": set(), "decoder": set()}
    for name in state:
        part, _, number = name.split(".")[:3]
        numbers[part].add(int(number))
    return tuple(f"{part}.layers.{max(layers)}." for part, layers in numbers.items())


def native_unet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a wide mini UNet from diffusers' names to those of a checkpoint, `input_blocks.*` and so on."""
    table = module_names(WIDE_LAYOUT)
    return {native_name(name, table): tensor for name, tensor in state.items()}


def native_autoencoder(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename an AutoencoderTiny to TAESD's names, where the first layer of the decoder is a clamp."""
    return {_autoencoder_name(name): tensor for name, tensor in state.items()}


def _autoencoder_name(name: str) -> str:
    part, _, number, rest = name.split(".", 3)
    shift = 1 if part == "decoder" else 0
    return f"taesd_{part}.{int(number) + shift}.{rest}"
