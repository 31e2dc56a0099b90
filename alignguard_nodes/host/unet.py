"""The network of a MODEL: whether it can be trained, and what is lent to train or calibrate with."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import comfy.lora
import comfy.model_management
import comfy.utils
import torch
from comfy.patcher_extension import CallbacksMP, WrappersMP
from torch import Tensor, nn

from ...training.models import Family, identify
from ...training.models.flow import FLOW_FAMILIES, FlowFamily
from ...training.models.hashes import weights_hash
from ...training.models.native_unet import check_native, unet_from_native
from ...training.models.noise import Schedule
from .network import check_flow, flow_network, flow_schedule, gradients_in_host
from .ranged import has_ranged

_PREDICTIONS = {"EPS": "epsilon", "V_PREDICTION": "v_prediction"}  # the host's model types -> diffusers'
_FAMILIES = {"SD15": "sd15", "SD20": "sd21", "SDXL": "sdxl"}  # the host's class names -> ours
_FLOWS = {  # likewise; no class that inherits from them is meant
    "SD3": "sd3",
    "Flux": "flux1",
    "FluxSchnell": "flux1",
    "Flux2": "flux2",
    "ZImage": "zimage",
    "QwenImage": "qwenimage",
    "Krea2": "krea2",
    "Anima": "anima",
}
_CHANGING_CALLS = (  # kinds that can change a prediction; others act before, between or after predictions
    WrappersMP.APPLY_MODEL,
    WrappersMP.DIFFUSION_MODEL,
    CallbacksMP.ON_LOAD,
    CallbacksMP.ON_PRE_RUN,
    CallbacksMP.ON_INJECT_MODEL,
)
_COMPILED = "torch.compile"  # the host's key of a wrapper that only makes predictions faster


class BorrowedUnet(NamedTuple):
    """A MODEL's network on the host's device: a UNet as a copy in diffusers, a flow's transformer as it is.

    Attributes:
        unet: frozen; of a flow, a `Network` that shares the MODEL's weights.
        family: of the MODEL, with its prediction type.
        schedule: of the MODEL.
        weights_hash: of the weights, patches included.
        num_baked: number of weights that include patches of the MODEL.
    """

    unet: nn.Module
    family: Family | FlowFamily
    schedule: Schedule
    weights_hash: str
    num_baked: int


def family_of(model: Any) -> tuple[str, int]:
    """Return the family and the text width of a MODEL; an unknown family has the host's name."""
    config = model.model.model_config
    names = [cls.__name__ for cls in type(config).__mro__]
    if flow := _flow_of(model):
        return flow.name, flow.text_width
    family = next((_FAMILIES[name] for name in names if name in _FAMILIES), names[0])
    return family, int(config.unet_config.get("context_dim") or 0)


def _flow_of(model: Any) -> FlowFamily | None:
    """Return the flow family of a MODEL, with the text width of its size; None if it is not a known flow."""
    config = model.model.model_config
    name = _FLOWS.get(type(config).__name__)
    if name is None:
        return None
    family = FLOW_FAMILIES[name]
    return replace(family, text_width=config.unet_config.get("context_in_dim", family.text_width))


@contextmanager
def outside_inference_mode() -> Iterator[None]:
    """Leave the host's inference mode, so that tensors made inside the context can be trained on."""
    with torch.inference_mode(False):
        yield


@contextmanager
def borrowed_unet(model: Any, precision: str, *, bake_patches: bool = False) -> Iterator[BorrowedUnet]:
    """Lend a MODEL's network; the host's models are unloaded first, and what was lent is freed afterwards.

    Args:
        model: MODEL.
        precision: as in `TrainConfig`.
        bake_patches: see `check_trainable`.

    Raises:
        ValueError: as `check_trainable`, or if weights are quantised.
    """
    from ...training.trainer.plan import place_unet
    from ...training.trainer.run import autocast_dtype

    family = check_trainable(model, bake_patches=bake_patches)
    device = comfy.model_management.get_torch_device()
    with torch.inference_mode():
        comfy.model_management.unload_all_models()  # also removes LoRAs of other branches from the weights
        baked = _baked(model)
        if isinstance(family, FlowFamily):
            with torch.inference_mode(False):
                unet = flow_network(model, family, baked)
            schedule, dtype = flow_schedule(model), None
        else:
            unet = unet_from_native(model.model.diffusion_model.state_dict() | baked, family)
            schedule, dtype = family.schedule(), autocast_dtype(precision, device) or torch.float32
        name = weights_hash(unet)  # before the weights are rounded
    try:
        with gradients_in_host():
            yield BorrowedUnet(place_unet(unet, device, dtype), family, schedule, name, len(baked))
    finally:
        unet.to("meta")  # a traceback may still hold the module, so free its weights
        gc.collect()
        comfy.model_management.soft_empty_cache()


def check_trainable(model: Any, *, bake_patches: bool = False) -> Family | FlowFamily:
    """Return the family of a MODEL if its network can be lent; nothing is loaded.

    Args:
        model: MODEL.
        bake_patches: whether patches of its weights may become part of the copy.

    Raises:
        ValueError: if the MODEL carries patches that must not or cannot be baked, its UNet is changed besides
            its weights, its prediction type or family is not supported, or its UNet is not a plain one of
            its family.
    """
    if model.hook_patches or model.weight_wrapper_patches or has_ranged(model):
        raise ValueError(
            "this MODEL carries scheduled patches, which act on a part of the sampling, so there is no "
            "single set of weights to train on. Connect a MODEL whose LoRAs and experts act during the whole "
            "sampling."
        )
    if changes := _changes_beside_weights(model):
        raise ValueError(
            f"the UNet of this MODEL is changed besides its weights ({', '.join(changes)}). A copy of the "
            "weights lacks this change, and bake_patches cannot add it. Connect the MODEL without the node "
            "that makes the change (such as FreeU, ToMe or an attention adapter); when drawing, that node "
            "can follow the expert."
        )
    if model.patches and not bake_patches:
        raise ValueError(
            f"this MODEL already carries a LoRA or an expert ({len(model.patches)} patches), which would "
            "become part of the base model. Connect the MODEL directly from its loader, or switch on "
            "bake_patches of Train Safety DPO to train on top of it."
        )
    if flow := _flow_of(model):
        check_flow(model, flow)
        return flow
    kind = model.model.model_type
    if kind.name not in _PREDICTIONS or "model_sampling" in model.object_patches:
        raise ValueError(
            f"this MODEL predicts {kind.name} or has its sampling changed. Supported are EPS and "
            "V_PREDICTION models of SD 1.5, SD 2.1 and SDXL, and the flows "
            f"{', '.join(flow.label for flow in FLOW_FAMILIES.values())}. Connect the MODEL directly from "
            "its loader."
        )
    settings = model.model.model_config.sampling_settings
    weights = model.model.diffusion_model.state_dict()
    family = identify(weights)
    with torch.inference_mode(False):
        check_native(weights, family)
    return family.predicting(_PREDICTIONS[kind.name], zero_terminal_snr=bool(settings.get("zsnr")))


def _changes_beside_weights(model: Any) -> list[str]:
    """Name what changes predictions besides weights; guidance (`sampler_*`) only combines them."""
    options = model.model_options.get("transformer_options", {})
    changes = [name for name in model.object_patches if name.partition(".")[0] == "diffusion_model"]
    for option in ("patches", "patches_replace"):
        changes += [f"{option} {kind}" for kind, added in options.get(option, {}).items() if added]
    for calls in (model.wrappers, model.callbacks, options.get("wrappers", {}), options.get("callbacks", {})):
        changes += [kind for kind in _CHANGING_CALLS if calls.get(kind, {}).keys() - {_COMPILED}]
    changes += {"optimized_attention_override"} & options.keys()
    changes += {"model_function_wrapper"} & model.model_options.keys()
    return changes + list(model.injections)


def _baked(model: Any) -> dict[str, Tensor]:
    """Return copies of the patched weights with their patches applied; the host's weights stay unchanged."""
    baked = {}
    for key, patches in model.patches.items():
        weight = comfy.utils.get_attr(model.model, key)
        # computed as the host does, so that the copy equals the UNet that the host samples with
        patched = comfy.lora.calculate_weight(patches, weight.to(torch.float32, copy=True), key)
        baked[key.removeprefix("diffusion_model.")] = patched.to(weight.dtype)
    return baked
