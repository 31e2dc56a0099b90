"""The UNet of a MODEL: what it is, and a copy of it to train or calibrate with."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import comfy.model_management
import torch
from torch import nn

from ...training.families import Family, identify
from ...training.families.native_unet import unet_from_native
from ...training.families.weights_hash import weights_hash
from ...training.step import autocast_dtype

_PREDICTIONS = {"EPS": "epsilon", "V_PREDICTION": "v_prediction"}  # the host's model types -> diffusers'
_FAMILIES = {"SD15": "sd15", "SD20": "sd21", "SDXL": "sdxl"}  # the host's class names -> ours


class BorrowedUnet(NamedTuple):
    """The UNet of a MODEL as diffusers' UNet, on the host's device, with what is known about it."""

    unet: nn.Module
    family: Family
    weights_hash: str


def family_of(model: Any) -> tuple[str, int]:
    """Return the family's name and the text width of a MODEL; an unknown one has the host's name for it."""
    config = model.model.model_config
    names = [cls.__name__ for cls in type(config).__mro__]
    family = next((_FAMILIES[name] for name in names if name in _FAMILIES), names[0])
    return family, int(config.unet_config.get("context_dim") or 0)


@contextmanager
def outside_inference_mode() -> Iterator[None]:
    """Leave the inference mode that the host runs nodes in; tensors made inside can be trained on."""
    with torch.inference_mode(False):
        yield


@contextmanager
def borrowed_unet(model: Any, precision: str) -> Iterator[BorrowedUnet]:
    """Lend a copy of a MODEL's UNet in a precision of `TrainConfig`, all host models unloaded; freed after.

    Raises:
        ValueError: as `check_trainable`, or if weights are quantised.
    """
    family = check_trainable(model)
    with torch.inference_mode():
        comfy.model_management.unload_all_models()  # also takes LoRAs of other branches off the weights
        unet = unet_from_native(model.model.diffusion_model.state_dict(), family)
        name = weights_hash(unet)  # before they are rounded
    device = comfy.model_management.get_torch_device()
    dtype = autocast_dtype(precision, device) or torch.float32
    try:
        yield BorrowedUnet(nn.Module.to(unet, device, dtype), family, name)  # diffusers' own `to` warns
    finally:
        unet.to("meta")  # the frames of a traceback may still hold the module, but no longer its weights
        gc.collect()
        comfy.model_management.soft_empty_cache()


def check_trainable(model: Any) -> Family:
    """Return the family of a MODEL whose UNet can be lent; nothing is loaded.

    Raises:
        ValueError: if it carries patches, its prediction cannot be trained, or is of another family.
    """
    if model.patches or model.hook_patches:
        raise ValueError(
            f"this MODEL carries a LoRA or an expert already ({len(model.patches) or 'scheduled'} "
            "patches), which would become part of what training keeps. Connect the MODEL of the "
            "checkpoint loader itself."
        )
    kind = model.model.model_type
    if kind.name not in _PREDICTIONS or "model_sampling" in model.object_patches:
        raise ValueError(
            f"this MODEL predicts {kind.name} or has its sampling changed; this version works with EPS and "
            "V_PREDICTION models of SD 1.5, SD 2.1 and SDXL. Connect the MODEL of such a loader itself."
        )
    settings = model.model.model_config.sampling_settings
    family = identify(model.model.diffusion_model.state_dict())
    return family.predicting(_PREDICTIONS[kind.name], zero_terminal_snr=bool(settings.get("zsnr")))
