"""Names of a UNet's tensors: diffusers' and those of the original code, which hosts and checkpoints use.

The original code numbers all blocks in one row; diffusers groups them by level. With L layers a level:
down level i, layer j is `input_blocks[1 + i (L + 1) + j]` (`.0` resnet, `.1` attention), the downsampler
after it `input_blocks[(i + 1)(L + 1)].0.op`; up block i, layer j is `output_blocks[i (L + 1) + j]`, and
its upsampler the last part of the block's last entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .family import Family

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


_ENDS = {
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
    """The size of a UNet, read off its tensors.

    Args:
        channels: width per level, from the finest to the coarsest.
        attention: whether the level has transformers, per level.
        layers: resnets per level on the way down, one less than on the way up.
        in_channels: of the noisy latents.
        out_channels: of the prediction.
        depth: layers of each transformer, per level, 0 where there is none; the last one's, or 1, is the
            middle's. Empty where every transformer has one.
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
        state: tensors by the original names, without a prefix.

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
            f"at {samplers}{f', and no {missing[0]}' if missing else ''}. Load a checkpoint of that kind."
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
    """Return the original name of each module, by diffusers' name: whole transformers, single layers else."""
    table = dict(_ENDS)
    for index, native in enumerate(("middle_block.0", "middle_block.2")):
        table |= _resnet(f"mid_block.resnets.{index}", native)
    period, last = layout.layers + 1, len(layout.channels) - 1
    for level, attention in enumerate(layout.attention):
        for layer in range(layout.layers):
            native = f"input_blocks.{1 + level * period + layer}"
            table |= _layer(f"down_blocks.{level}", layer, native, attention=attention)
        if level < last:
            table[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{(level + 1) * period}.0.op"
    for index, attention in enumerate(reversed(layout.attention)):
        for layer in range(period):
            table |= _layer(
                f"up_blocks.{index}", layer, f"output_blocks.{index * period + layer}", attention=attention
            )
        if index < last:
            native = f"output_blocks.{index * period + layout.layers}.{2 if attention else 1}.conv"
            table[f"up_blocks.{index}.upsamplers.0.conv"] = native
    return table


def native_name(name: str, table: Mapping[str, str]) -> str:
    """Return the original name of a tensor.

    Args:
        name: diffusers' name, such as `conv_in.weight`.
        table: see `module_names`.

    Raises:
        ValueError: if no module of the table holds it.
    """
    module = name
    while module:
        module = module.rpartition(".")[0]
        if module in table:
            return table[module] + name.removeprefix(module)
    raise ValueError(f"{name} is not a tensor of this UNet.")


def diffusers_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return diffusers' name of each tensor of a UNet, by its original name.

    Args:
        state: tensors by the original names, without a prefix; only shapes are looked at.

    Raises:
        ValueError: if it is not the UNet of a Stable Diffusion model, see `read_layout`.
    """
    modules = {native: name for name, native in module_names(read_layout(state)).items()}
    return {native: native_name(native, modules) for native in state}


def _layer(block: str, layer: int, native: str, *, attention: bool) -> dict[str, str]:
    table = _resnet(f"{block}.resnets.{layer}", f"{native}.0")
    if attention:
        table[f"{block}.attentions.{layer}"] = f"{native}.1"
    return table


def _resnet(name: str, native: str) -> dict[str, str]:
    return {f"{name}.{part}": f"{native}.{original}" for part, original in _RESNET.items()}


CHECKPOINT_PREFIX = "model.diffusion_model."
PLAIN_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def unet_from_native(
    state: Mapping[str, Tensor], family: Family, *, dtype: torch.dtype | None = None
) -> UNet2DConditionModel:
    """Build diffusers' UNet from tensors under the names of the original code.

    Number of levels, layers and channels are read off the shapes, so every size of the family works.
    The result shares no memory with `state`, and is made of normal tensors also inside a host's
    inference mode; train it outside.

    Args:
        state: tensors by name without a prefix, such as `input_blocks.0.0.weight`.
        family: see `identify`.
        dtype: type of the result; None keeps the tensors' own.

    Returns:
        The UNet, frozen, in eval mode, on the device of the tensors.

    Raises:
        ValueError: if a tensor is missing, left over, quantised or of an unexpected shape; it is named.
    """
    with torch.inference_mode(False):
        unet, natives = _matched(state, family)
        renamed = {
            name: state[native].detach().to(dtype or state[native].dtype, copy=True)
            for name, native in natives.items()
        }
        unet.load_state_dict(renamed, assign=True)
        return unet.eval().requires_grad_(False)


def check_native(state: Mapping[str, Tensor], family: Family) -> None:
    """Refuse what `unet_from_native` would, without copying a tensor.

    Raises:
        ValueError: as there.
    """
    _matched(state, family)


def unet_config(layout: Layout, family: Family) -> dict:
    """Return the settings of diffusers' UNet2DConditionModel for a size of the family."""
    down = ["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in layout.attention]
    up = ["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in reversed(layout.attention)]
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


def _matched(state: Mapping[str, Tensor], family: Family) -> tuple[UNet2DConditionModel, dict[str, str]]:
    """Return diffusers' UNet of this size without memory, and the original name of each of its tensors."""
    from diffusers import UNet2DConditionModel  # imported late: a broken install must not remove the nodes

    layout = read_layout(state)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_config(layout, family))
    table = module_names(layout)
    wanted = {name: (native_name(name, table), tensor.shape) for name, tensor in unet.state_dict().items()}
    _check_names(state, {native for native, _ in wanted.values()}, family)
    for native, shape in wanted.values():
        _check_tensor(native, state[native], shape, family)
    return unet, {name: native for name, (native, _) in wanted.items()}


def _check_names(state: Mapping[str, Tensor], wanted: set[str], family: Family) -> None:
    missing, left_over = sorted(wanted - state.keys()), sorted(state.keys() - wanted)
    if missing or left_over:
        parts = [f"{len(missing)} tensors are missing, such as {missing[0]}"] if missing else []
        parts += [f"{len(left_over)} are not part of it, such as {left_over[0]}"] if left_over else []
        raise ValueError(
            f"the UNet is not a plain {family.label} one: {'; '.join(parts)}. "
            f"Load an unmodified {family.label} checkpoint."
        )


def _check_tensor(name: str, tensor: Tensor, shape: torch.Size, family: Family) -> None:
    if tensor.dtype not in PLAIN_DTYPES:
        raise ValueError(
            f"{name} is stored as {tensor.dtype}, which cannot be trained. "
            "Load the checkpoint in fp32, fp16 or bf16, not quantised."
        )
    if tensor.shape != shape:
        raise ValueError(
            f"{name} must have shape {tuple(shape)} in {family.label}, got {tuple(tensor.shape)}. "
            f"Load an unmodified {family.label} checkpoint."
        )
