"""The autoencoder of a checkpoint, KL or tiny (TAESD): from pictures to the UNet's latents and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..system.tensors import check_finite
from .family import Family
from .native_unet import DAMAGED

CHECKPOINT_PREFIX = "first_stage_model."

_KL_PARTS = ("encoder", "decoder", "quant_conv", "post_quant_conv")  # training checkpoints hold a loss too
_KL_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """An autoencoder, and the scale and shift from its latents to those of the UNet.

    UNet latents = multiply * model latents + add.

    Args:
        model: AutoencoderKL or AutoencoderTiny of diffusers, frozen.
        multiply: the scale.
        add: the shift.
    """

    model: nn.Module
    multiply: float
    add: float = 0.0

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return latents as the UNet sees them; deterministic, because KL's mean is taken.

        Args:
            images: (batch, 3, height, width), fp32 in [-1, 1], on any device.

        Returns:
            (batch, 4, height / 8, width / 8) on the model's device.
        """
        encoded = self.model.encode(images.to(next(self.model.parameters())))
        raw = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mean
        return raw * self.multiply + self.add

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return images in [-1, 1], (batch, 3, height, width), of latents as the UNet sees them.

        Raises:
            ValueError: if the images are not finite.
        """
        raw = (latents.to(next(self.model.parameters())) - self.add) / self.multiply
        images = self.model.decode(raw).sample
        check_finite(images, "the picture that the VAE decoded", "Use it in fp32 or bf16, or another VAE.")
        return images.clamp(-1, 1)


def autoencoder_from_native(state: Mapping[str, Tensor], family: Family) -> Autoencoder:
    """Build the autoencoder from tensors under the names of a checkpoint, without `first_stage_model.`.

    Args:
        state: tensors in the KL layout (`encoder.*`, `decoder.*`, `quant_conv.*`) or the tiny layout of hosts
            (`taesd_encoder.*`, `taesd_decoder.*`, `vae_scale`, `vae_shift`). The size is read off the shapes.
        family: family of the model, for the latent scale.

    Raises:
        ValueError: if the layout is neither of the two, or a tensor is missing or misshapen.
    """
    if "taesd_encoder.0.weight" in state:
        return _tiny(state, family)
    if "encoder.down.0.block.0.conv1.weight" in state:
        return _kl(state, family)
    example = f", such as {next(iter(state))}" if state else ""
    raise ValueError(
        f"the checkpoint has no autoencoder of a supported layout: it holds {len(state)} tensors under "
        f"{CHECKPOINT_PREFIX}{example}. Load a complete {family.label} checkpoint with its VAE inside."
    )


def kl_name(native: str, num_levels: int) -> str:
    """Return diffusers' name of a tensor of the KL autoencoder.

    Args:
        native: name in a checkpoint, such as `decoder.up.0.block.2.conv1.weight`.
        num_levels: number of resolutions; diffusers numbers the decoder's levels from the other end.
    """
    name = re.sub(r"^encoder\.down\.(\d+)\.block", r"encoder.down_blocks.\1.resnets", native)
    name = re.sub(r"^encoder\.down\.(\d+)\.downsample", r"encoder.down_blocks.\1.downsamplers.0", name)
    up = re.match(r"decoder\.up\.(\d+)\.(block|upsample)", name)
    if up:
        part = {"block": "resnets", "upsample": "upsamplers.0"}[up[2]]
        name = f"decoder.up_blocks.{num_levels - 1 - int(up[1])}.{part}{name[up.end() :]}"
    name = re.sub(r"\.mid\.block_(\d)", lambda match: f".mid_block.resnets.{int(match[1]) - 1}", name)
    name = re.sub(
        r"\.mid\.attn_1\.(\w+)",
        lambda match: f".mid_block.attentions.0.{_KL_ATTENTION.get(match[1], match[1])}",
        name,
    )
    name = re.sub(r"^(encoder|decoder)\.norm_out", r"\1.conv_norm_out", name)
    return name.replace("nin_shortcut", "conv_shortcut")


def load_frozen(model: nn.Module, state: Mapping[str, Tensor], label: str) -> nn.Module:
    """Load the weights of a model that was made on the meta device, in fp32, and freeze it.

    Args:
        model: any module; its tensors are replaced, not copied into.
        state: all of its tensors by name.
        label: name of the model in errors.

    Raises:
        ValueError: naming the first tensor that is missing, left over, misshapen or not finite.
    """
    weights = {name: tensor.detach().to(torch.float32, copy=True) for name, tensor in state.items()}
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    wrong = sorted(weights.keys() ^ shapes.keys())
    wrong += sorted(name for name in weights.keys() & shapes.keys() if weights[name].shape != shapes[name])
    if wrong:
        raise ValueError(
            f"the {label} does not fit: {len(wrong)} tensors are missing, left over or misshapen, such as "
            f"{wrong[0]}. Load a complete, unmodified checkpoint."
        )
    for name, tensor in weights.items():
        check_finite(tensor, f"{name} of the {label}", DAMAGED)
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)


def _tiny(state: Mapping[str, Tensor], family: Family) -> Autoencoder:
    """Build the tiny autoencoder.

    The host's latent is encoder(x) / vae_scale + vae_shift, multiplied by the family's scale for the UNet.
    """
    from diffusers import AutoencoderTiny  # imported late: a broken install must not remove the nodes

    width = state["taesd_encoder.0.weight"].shape[0]
    with torch.device("meta"):
        model = AutoencoderTiny(
            encoder_block_out_channels=(width,) * 4, decoder_block_out_channels=(width,) * 4
        )
    renamed = {tiny_name(name): tensor for name, tensor in state.items() if name.startswith("taesd_")}
    scale = float(state.get("vae_scale", torch.tensor(1.0)))
    shift = float(state.get("vae_shift", torch.tensor(0.0)))
    load_frozen(model, renamed, "tiny autoencoder")
    return Autoencoder(model, family.latent_scale / scale, shift * family.latent_scale)


def tiny_name(native: str) -> str:
    """Return diffusers' name of a tensor of the tiny autoencoder, such as `taesd_encoder.0.weight`."""
    part, number, rest = native.removeprefix("taesd_").split(".", 2)
    # the clamp is layer 0 of the host's decoder; diffusers clamps outside the numbered layers
    return f"{part}.layers.{int(number) - (part == 'decoder')}.{rest}"


def _kl(state: Mapping[str, Tensor], family: Family) -> Autoencoder:
    from diffusers import AutoencoderKL  # imported late: a broken install must not remove the nodes

    config = _kl_config(state, family)
    with torch.device("meta"):
        model = AutoencoderKL(**config)
    levels = len(config["block_out_channels"])
    names = {native: kl_name(native, levels) for native in state if native.split(".")[0] in _KL_PARTS}
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    renamed = {name: _as_linear(state[native], shapes.get(name)) for native, name in names.items()}
    return Autoencoder(load_frozen(model, renamed, "autoencoder"), family.latent_scale)


def _kl_config(state: Mapping[str, Tensor], family: Family) -> dict[str, Any]:
    widths, layers = [], 0
    while (name := f"encoder.down.{len(widths)}.block.0.conv1.weight") in state:
        widths.append(state[name].shape[0])
    while f"encoder.down.0.block.{layers}.conv1.weight" in state:
        layers += 1
    return {
        "block_out_channels": tuple(widths),
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "layers_per_block": layers,
        "latent_channels": family.latent_channels,
        "scaling_factor": family.latent_scale,
    }


def _as_linear(tensor: Tensor, shape: torch.Size | None) -> Tensor:
    """Return a 1x1 convolution of the original attention as the linear layer of diffusers."""
    is_pointwise = shape is not None and tensor.ndim == 4 and len(shape) == 2
    return tensor.flatten(1) if is_pointwise else tensor
