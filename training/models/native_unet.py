"""A UNet under the tensor names of the original code, which hosts and checkpoints use, and in diffusers.

The size of the UNet is read off its tensors, its tensors are renamed, and diffusers' UNet is built from them.

The original code numbers all blocks in one sequence; diffusers groups them by level. With L layers per level,
layer j of down level i is `input_blocks[1 + i (L + 1) + j]` (`.0` resnet, `.1` attention), followed by the
downsampler `input_blocks[(i + 1)(L + 1)].0.op`. Layer j of up block i is `output_blocks[i (L + 1) + j]`; the
upsampler is the last part of the block's last entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..system.tensors import check_finite
from .family import Family

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

CHECKPOINT_PREFIX = "model.diffusion_model."
DAMAGED = "The file is damaged, or its training diverged; use another one."
PLAIN_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_OF_QUANTISED = (
    "comfy_quant",
    "weight_scale",
    "weight_scale_2",
    "scale_weight",
    "scaled_fp8",
)  # ends of names
_UNQUANTISED = (
    "Quantised weights (fp8, nvfp4, int8) draw, but nothing can be trained or calibrated on them. Load the "
    "same model in fp32, fp16 or bf16, not quantised; the expert then works on the quantised one too."
)

_ENDS = {  # diffusers' name -> original name, outside the levels
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.attentions.0": "middle_block.1",
    "add_embedding.linear_1": "label_emb.0.0",  # SDXL: pooled text and sizes
    "add_embedding.linear_2": "label_emb.0.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


@dataclass(frozen=True)
class Layout:
    """The size of a UNet.

    Args:
        channels: width of each level, from the finest to the coarsest.
        attention: whether each level has transformers.
        layers: resnets per level on the way down; the way up has one more.
        in_channels: channels of the noisy latents.
        out_channels: channels of the prediction.
        depth: layers of each transformer per level, 0 for a level without transformers; the middle block has
            the depth of the last level, or 1. Empty if every transformer has one layer.
    """

    channels: tuple[int, ...]
    attention: tuple[bool, ...]
    layers: int
    in_channels: int
    out_channels: int
    depth: tuple[int, ...] = ()


def read_layout(state: Mapping[str, Tensor]) -> Layout:
    """Read the size of a UNet off its tensors.

    Args:
        state: tensors by their original names, without a prefix; only shapes are read.

    Raises:
        ValueError: if the blocks are not arranged in levels of equal depth, as in Stable Diffusion.
    """
    blocks = sorted({int(name.split(".")[1]) for name in state if name.startswith("input_blocks.")})
    samplers = [block for block in blocks if f"input_blocks.{block}.0.op.weight" in state]
    period = samplers[0] if samplers else len(blocks)
    levels = len(samplers) + 1
    regular = blocks == list(range(levels * period)) and samplers == [period * n for n in range(1, levels)]
    firsts = [1 + level * period for level in range(levels)]
    widths = [f"input_blocks.{first}.0.out_layers.3.weight" for first in firsts]
    missing = [name for name in (*widths, "input_blocks.0.0.weight", "out.2.weight") if name not in state]
    if period < 2 or not regular or missing:
        raise ValueError(
            f"this is not the UNet of a Stable Diffusion model: {len(blocks)} input blocks with downsamplers "
            f"at {samplers}{f', and {missing[0]} is missing' if missing else ''}. Load a Stable Diffusion "
            "checkpoint."
        )
    return Layout(
        channels=tuple(state[name].shape[0] for name in widths),
        attention=tuple(f"input_blocks.{first}.1.norm.weight" in state for first in firsts),
        layers=period - 1,
        in_channels=state["input_blocks.0.0.weight"].shape[1],
        out_channels=state["out.2.weight"].shape[0],
        depth=tuple(_depth(state, f"input_blocks.{first}.1.") for first in firsts),
    )


def _depth(state: Mapping[str, Tensor], transformer: str) -> int:
    depth = 0
    while f"{transformer}transformer_blocks.{depth}.norm1.weight" in state:
        depth += 1
    return depth


def module_names(layout: Layout) -> dict[str, str]:
    """Return the original name of each module by its diffusers name.

    A transformer is one entry; every other entry is a single layer.
    """
    table = dict(_ENDS)
    for index, native in enumerate(("middle_block.0", "middle_block.2")):
        table |= _resnet_names(f"mid_block.resnets.{index}", native)
    period, last = layout.layers + 1, len(layout.channels) - 1
    for level, attention in enumerate(layout.attention):
        for layer in range(layout.layers):
            native = f"input_blocks.{1 + level * period + layer}"
            table |= _layer_names(f"down_blocks.{level}", layer, native, attention=attention)
        if level < last:
            table[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{(level + 1) * period}.0.op"
    for index, attention in enumerate(reversed(layout.attention)):
        for layer in range(period):
            native = f"output_blocks.{index * period + layer}"
            table |= _layer_names(f"up_blocks.{index}", layer, native, attention=attention)
        if index < last:
            native = f"output_blocks.{index * period + layout.layers}.{2 if attention else 1}.conv"
            table[f"up_blocks.{index}.upsamplers.0.conv"] = native
    return table


def _layer_names(block: str, layer: int, native: str, *, attention: bool) -> dict[str, str]:
    table = _resnet_names(f"{block}.resnets.{layer}", f"{native}.0")
    if attention:
        table[f"{block}.attentions.{layer}"] = f"{native}.1"
    return table


def _resnet_names(name: str, native: str) -> dict[str, str]:
    return {f"{name}.{part}": f"{native}.{original}" for part, original in _RESNET.items()}


def native_name(name: str, table: Mapping[str, str]) -> str:
    """Return the original name of a tensor.

    Args:
        name: diffusers' name, such as `conv_in.weight`.
        table: original names of modules, see `module_names`.

    Raises:
        ValueError: if the tensor belongs to no module of the table.
    """
    module = name
    while module:
        module = module.rpartition(".")[0]
        if module in table:
            return table[module] + name.removeprefix(module)
    raise ValueError(f"{name} is not a tensor of this UNet.")


def diffusers_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the diffusers name of each tensor of a UNet by its original name.

    Args:
        state: tensors by their original names, without a prefix; only shapes are read.

    Raises:
        ValueError: if this is not the UNet of a Stable Diffusion model, see `read_layout`.
    """
    modules = {native: name for name, native in module_names(read_layout(state)).items()}
    return {native: native_name(native, modules) for native in state}


def unet_from_native(
    state: Mapping[str, Tensor], family: Family, *, dtype: torch.dtype | None = None
) -> UNet2DConditionModel:
    """Build diffusers' UNet from tensors under the names of the original code.

    The numbers of levels, layers and channels are read off the shapes, so every size of the family works. The
    result shares no memory with `state` and consists of normal tensors even inside a host's inference mode;
    train it outside that mode.

    Args:
        state: tensors by name without a prefix, such as `input_blocks.0.0.weight`.
        family: family of the UNet, see `identify`.
        dtype: type of the result; None keeps the types of the tensors.

    Returns:
        The UNet, frozen, in eval mode, on the device of the tensors.

    Raises:
        ValueError: naming a tensor that is missing, left over, quantised, misshapen or not finite.
    """
    with torch.inference_mode(False):
        unet, natives = _match(state, family)
        renamed = {name: _copy(state[native], native, dtype) for name, native in natives.items()}
        unet.load_state_dict(renamed, assign=True)
        return unet.eval().requires_grad_(False)


def _copy(tensor: Tensor, name: str, dtype: torch.dtype | None) -> Tensor:
    weight = tensor.detach().to(dtype or tensor.dtype, copy=True)
    check_finite(weight, name, DAMAGED)
    return weight


def refuse_quantised(names: Iterable[str]) -> None:
    """Check that no tensor belongs to a quantised weight.

    Raises:
        ValueError: naming the first of them.
    """
    if name := next((name for name in names if name.endswith(_OF_QUANTISED)), ""):
        raise ValueError(f"the model has {name}, so its weights are quantised. {_UNQUANTISED}")


def check_native(state: Mapping[str, Tensor], family: Family) -> None:
    """Check that `unet_from_native` can build this UNet, without copying a tensor.

    Raises:
        ValueError: as `unet_from_native`.
    """
    _match(state, family)


def unet_config(layout: Layout, family: Family) -> dict[str, Any]:
    """Return the settings of diffusers' UNet2DConditionModel for a size of the family."""
    down = ["CrossAttnDownBlock2D" if has_attention else "DownBlock2D" for has_attention in layout.attention]
    up = ["CrossAttnUpBlock2D" if has_attention else "UpBlock2D" for has_attention in layout.attention[::-1]]
    heads = (
        {"attention_head_dim": tuple(max(1, width // family.head_channels) for width in layout.channels)}
        if family.head_channels  # diffusers' name for the number of heads
        else {}
    )
    return {
        "in_channels": layout.in_channels,
        "out_channels": layout.out_channels,
        "block_out_channels": layout.channels,
        "layers_per_block": layout.layers,
        "down_block_types": tuple(down),
        "up_block_types": tuple(up),
        "cross_attention_dim": family.text_width,
        "transformer_layers_per_block": tuple(depth or 1 for depth in layout.depth) or 1,
        **heads,
        **family.unet_config,
    }


def _match(state: Mapping[str, Tensor], family: Family) -> tuple[UNet2DConditionModel, dict[str, str]]:
    """Return diffusers' UNet on the meta device, and the original name of each of its tensors."""
    from diffusers import UNet2DConditionModel  # imported late: a broken install must not remove the nodes

    layout = read_layout(state)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_config(layout, family))
    table = module_names(layout)
    expected = {name: (native_name(name, table), tensor.shape) for name, tensor in unet.state_dict().items()}
    _check_names(state, {native for native, _ in expected.values()}, family)
    for native, shape in expected.values():
        _check_tensor(native, state[native], shape, family)
    return unet, {name: native for name, (native, _) in expected.items()}


def _check_names(state: Mapping[str, Tensor], expected: set[str], family: Family) -> None:
    missing, left_over = sorted(expected - state.keys()), sorted(state.keys() - expected)
    if missing or left_over:
        problems = [f"{len(missing)} tensors are missing, such as {missing[0]}"] if missing else []
        problems += [f"{len(left_over)} are not part of it, such as {left_over[0]}"] if left_over else []
        raise ValueError(
            f"the UNet is not a plain {family.label} one: {'; '.join(problems)}. "
            f"Load an unmodified {family.label} checkpoint."
        )


def _check_tensor(name: str, tensor: Tensor, shape: torch.Size, family: Family) -> None:
    if tensor.dtype not in PLAIN_DTYPES:
        raise ValueError(f"{name} is stored as {tensor.dtype}, so its weights are quantised. {_UNQUANTISED}")
    if tensor.shape != shape:
        raise ValueError(
            f"{name} must have shape {tuple(shape)} in {family.label}, got {tuple(tensor.shape)}. "
            f"Load an unmodified {family.label} checkpoint."
        )
