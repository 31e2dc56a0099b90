"""A base model in a diffusers folder: `unet`, `vae`, the text encoders and their configurations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..system.tables import read_json
from ..system.tensors import check_finite
from . import FAMILIES, FOREIGN_WIDTHS
from .autoencoder import Autoencoder
from .family import Family
from .native_unet import DAMAGED
from .noise import PREDICTION_TYPES
from .published import FOREIGN_CHANNELS, pruned_like
from .sdxl import edm_refusal
from .text_encoder import TextEncoder
from .tokenizer import load_tokenizer

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

_PARTS = ("unet", "vae", "text_encoder")  # of every family
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def read_folder(
    folder: Path, dtype: torch.dtype | None
) -> tuple[Family, UNet2DConditionModel, Autoencoder, TextEncoder]:
    """Read a base model from a diffusers folder.

    Args:
        folder: folder that holds `unet`, `vae`, `text_encoder` and, for SDXL, `text_encoder_2`, each with
            config.json and .safetensors weights.
        dtype: type of the UNet; None keeps the type it is stored in.

    Returns:
        The family, the UNet, and autoencoder and text encoders in fp32.

    Raises:
        ValueError: if a part is missing, damaged or stored as a pickle only, or the family cannot be trained.
    """
    # imported late: a broken install must not remove the nodes
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    unet_config = _config(folder, "unet")
    family = _family(folder, unet_config)
    _refuse_variant(folder, unet_config)
    vae_name = _config(folder, "vae").get("_class_name")
    for kind in family.text_encoders:
        _config(folder, kind.folder)  # find a missing part before gigabytes are read
    vae_class = AutoencoderTiny if vae_name == "AutoencoderTiny" else AutoencoderKL
    unet = _load(UNet2DConditionModel, folder, "unet", "auto" if dtype is None else dtype)
    vae = _load(vae_class, folder, "vae", torch.float32)
    text_classes = [
        CLIPTextModelWithProjection if kind.pooled else CLIPTextModel for kind in family.text_encoders
    ]
    texts = [
        _load(text_class, folder, kind.folder, torch.float32)
        for text_class, kind in zip(text_classes, family.text_encoders, strict=True)
    ]
    return (
        family,
        unet,
        Autoencoder(vae, vae.config.scaling_factor),
        TextEncoder(tuple(texts), family.text_encoders, load_tokenizer()),
    )


def _load(model_class: type, folder: Path, part: str, dtype: Any) -> nn.Module:
    try:
        model = model_class.from_pretrained(
            folder / part, torch_dtype=dtype, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{folder.name}/{part} cannot be read ({error}). Download the folder again."
        ) from error
    for name, tensor in model.state_dict().items():
        check_finite(tensor, f"{name} in {folder.name}/{part}", DAMAGED)
    return model.eval().requires_grad_(False)


def _config(folder: Path, part: str) -> dict[str, Any]:
    file = folder / part / "config.json"
    if not file.is_file():
        raise ValueError(
            f"{folder.name} is not a diffusers base model: {part}/config.json is missing. It must hold "
            f"{', '.join(_PARTS)}. Or choose a .safetensors checkpoint instead of a folder."
        )
    check_weights(folder / part, f"{folder.name}/{part}")
    return _read_json(folder, file)


def check_weights(folder: Path, name: str) -> None:
    """Check that a folder holds .safetensors weights.

    Args:
        folder: folder of one part, such as the UNet.
        name: name of the folder in errors.

    Raises:
        ValueError: naming the folder and, if there is one, the pickle in it.
    """
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
        content = f"only {pickles[0]}, a pickle, which can run code when opened" if pickles else "no weights"
        raise ValueError(f"{name} holds {content}. Use the .safetensors version of the model.")


def _family(folder: Path, unet: dict[str, Any]) -> Family:
    predicted, zero_snr = _prediction(folder)
    width, channels = unet.get("cross_attention_dim"), unet.get("in_channels")
    for family in FAMILIES.values():
        if (width, channels) == (family.text_width, family.latent_channels) and predicted in PREDICTION_TYPES:
            return family.predicting(predicted, zero_terminal_snr=zero_snr)
    kind = FOREIGN_CHANNELS.get(channels) or FOREIGN_WIDTHS.get(width) or "of an unknown family"
    if predicted not in PREDICTION_TYPES:
        kind = "a model of another prediction type"
    trainable = ", ".join(family.label for family in FAMILIES.values())
    raise ValueError(
        f"{folder.name} is {kind} (text width {width}, {channels} input channels, prediction type "
        f"{predicted}); this version trains {trainable}. Choose such a model."
    )


def _refuse_variant(folder: Path, unet: dict[str, Any]) -> None:
    from diffusers import UNet2DConditionModel  # as above

    with torch.device("meta"):
        names = UNet2DConditionModel.from_config(unet).state_dict()
    kind = pruned_like(name.removesuffix(".weight") for name in names)
    if unet.get("time_cond_proj_dim"):
        kind = "a latent consistency model (LCM)"
    if kind:
        raise ValueError(
            f"{folder.name} is {kind}, which cannot be trained. Choose the model it was made of."
        )


def _prediction(folder: Path) -> tuple[str, bool]:
    """Return the prediction type, and whether the schedule ends in pure noise."""
    file = folder / "scheduler" / "scheduler_config.json"
    config = _read_json(folder, file) if file.is_file() else {}
    if "sigma_data" in config or str(config.get("_class_name")).startswith("EDM"):
        raise ValueError(f"{folder.name} cannot be the base model: {edm_refusal('its scheduler')}")
    predicted = config.get("prediction_type", "epsilon")
    zero_snr = bool(config.get("rescale_betas_zero_snr", False))
    if zero_snr and predicted == "epsilon":
        raise ValueError(
            f"the scheduler configuration of {folder.name} contradicts itself: a schedule that ends in pure "
            "noise needs a model that predicts v, but it says epsilon. Use the folder as it was published."
        )
    return predicted, zero_snr


def _read_json(folder: Path, file: Path) -> dict[str, Any]:
    name = f"{folder.name}/{file.relative_to(folder).as_posix()}"
    try:
        content = read_json(file)
    except ValueError as error:
        raise ValueError(f"{name} is damaged. Download it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name} does not hold a JSON object. Download it again.")
    return content
