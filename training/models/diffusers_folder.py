"""A base model in a folder of diffusers: `unet`, `vae`, the text encoders and their configurations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from . import FAMILIES
from .autoencoder import Autoencoder
from .family import Family
from .noise import PREDICTION_TYPES
from .text_encoder import TextEncoder
from .tokenizer import load_tokenizer

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

_PARTS = ("unet", "vae", "text_encoder")  # of every family
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def read_folder(
    folder: Path, dtype: torch.dtype | None
) -> tuple[Family, UNet2DConditionModel, Autoencoder, TextEncoder]:
    """Read a base model from a folder of diffusers; the encoders come in fp32.

    Args:
        folder: holds `unet`, `vae`, `text_encoder` and, for SDXL, `text_encoder_2`, each with config.json
            and .safetensors weights.
        dtype: type of the UNet; None keeps the file's own.

    Raises:
        ValueError: if a part is missing, there as a pickle only, or of a family that cannot be trained.
    """
    # imported late: a broken install must not remove the nodes
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    family = _family(folder, _config(folder, "unet"))
    vae_name = _config(folder, "vae").get("_class_name")
    for kind in family.text_encoders:
        _config(folder, kind.folder)  # a missing part is found before gigabytes are read
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
    return model.eval().requires_grad_(False)


def _config(folder: Path, part: str) -> dict[str, Any]:
    file = folder / part / "config.json"
    if not file.is_file():
        raise ValueError(
            f"{folder.name} is not a base model of diffusers: {part}/config.json is missing. It must hold "
            f"{', '.join(_PARTS)}; or name a .safetensors checkpoint instead of a folder."
        )
    check_weights(folder / part, f"{folder.name}/{part}")
    return _read_json(folder, file)


def check_weights(folder: Path, name: str) -> None:
    """Refuse a folder without weights, or with pickles only.

    Args:
        folder: of one part, such as the UNet.
        name: of the folder for people.

    Raises:
        ValueError: naming the folder and the pickle.
    """
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(found.name for pattern in _PICKLES for found in folder.glob(pattern))
        what = f"only {pickles[0]}, a pickle, which can run code when opened" if pickles else "no weights"
        raise ValueError(f"{name} holds {what}. Use the .safetensors version of the model.")


def _family(folder: Path, unet: dict[str, Any]) -> Family:
    predicted, zero_snr = _prediction(folder)
    found = unet.get("cross_attention_dim"), unet.get("in_channels"), predicted
    for family in FAMILIES.values():
        if found[:2] == (family.text_width, family.latent_channels) and predicted in PREDICTION_TYPES:
            return family.predicting(predicted, zero_terminal_snr=zero_snr)
    known = ", ".join(family.label for family in FAMILIES.values())
    raise ValueError(
        f"{folder.name} has text width {found[0]}, {found[1]} input channels and prediction type {found[2]}, "
        f"which is not {known}; this version trains {known}. Choose such a model."
    )


def _prediction(folder: Path) -> tuple[str, bool]:
    """Return what the model predicts, and whether its schedule ends in pure noise."""
    file = folder / "scheduler" / "scheduler_config.json"
    config = _read_json(folder, file) if file.is_file() else {}
    predicted = config.get("prediction_type", "epsilon")
    zero_snr = bool(config.get("rescale_betas_zero_snr", False))
    if zero_snr and predicted == "epsilon":
        raise ValueError(
            f"{folder.name} states a schedule ending in pure noise, but a model that predicts epsilon, which "
            "contradict each other. Use the folder as its makers published it."
        )
    return predicted, zero_snr


def _read_json(folder: Path, file: Path) -> dict[str, Any]:
    name = f"{folder.name}/{file.relative_to(folder).as_posix()}"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is damaged. Download it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{name} holds no JSON object. Download it again.")
    return content
