"""A host's UNet weights as a UNet of diffusers: same tensors, same outputs, nothing downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .family import Family
from .unet_names import Layout, module_names, native_name, read_layout

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

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
