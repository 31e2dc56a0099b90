"""The border to ComfyUI: the only module that imports comfy.* or folder_paths.

Foreign conventions end here: images (n, h, w, 3) in 0..1, unscaled latents, model patchers, inference
mode, names from widgets. What leaves this module is what `training` expects.
"""

import gc
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import comfy.hooks
import comfy.lora
import comfy.model_management
import comfy.patcher_extension
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image
from torch import Tensor, nn

from ..training.expert import SafetyExpert, check_family
from ..training.families import Family, identify
from ..training.families.native_unet import unet_from_native
from ..training.families.weights_hash import weights_hash
from ..training.lora_keys import Coverage, coverage, kohya_name, to_kohya
from ..training.step import autocast_dtype

EXPERTS = "safety_experts"  # the pack's own folder below models/
SAVE_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_EXPERT_FOLDERS = (EXPERTS, "loras")
_PREDICTIONS = {"EPS": "epsilon", "V_PREDICTION": "v_prediction"}  # the host's model types -> diffusers'
_FAMILIES = {"SD15": "sd15", "SD20": "sd21", "SDXL": "sdxl"}  # the host's class names -> ours

log = logging.getLogger(__name__)


class Encoders(NamedTuple):
    """What `training.data.cache.encode_pairs` needs: two functions and the name of their weights."""

    image: Callable[[Tensor], Tensor]
    prompt: Callable[[str], Tensor]
    id: str


class BorrowedUnet(NamedTuple):
    """The UNet of a MODEL as diffusers' UNet, on the host's device, with what is known about it."""

    unet: nn.Module
    family: Family
    weights_hash: str


def register_folders() -> None:
    """Make models/safety_experts known to the host; other packs and users may add folders to it."""
    folder_paths.add_model_folder_path(EXPERTS, os.path.join(folder_paths.models_dir, EXPERTS))
    paths, _ = folder_paths.folder_names_and_paths[EXPERTS]
    folder_paths.folder_names_and_paths[EXPERTS] = (paths, {".safetensors"})


def expert_files() -> list[str]:
    """Return the names of all files that may be experts, as the Load node lists them."""
    names = {name for folder in _EXPERT_FOLDERS for name in folder_paths.get_filename_list(folder)}
    return sorted(name for name in names if name.lower().endswith(".safetensors"))


def expert_path(name: str) -> Path:
    """Return the file of a name in the list; names that lead out of the folders find nothing.

    Raises:
        FileNotFoundError: if no folder has it.
    """
    for folder in _EXPERT_FOLDERS:
        with suppress(ValueError):  # Windows: a name on another drive
            if found := folder_paths.get_full_path(folder, name):
                return Path(found)
    raise FileNotFoundError(
        f"there is no expert {name!r}. Put the file into models/{EXPERTS} or a LoRA folder, and press R."
    )


def input_folder() -> Path:
    """Return ComfyUI's input folder."""
    return Path(os.path.abspath(folder_paths.get_input_directory()))


def output_folder() -> Path:
    """Return ComfyUI's output folder."""
    return Path(os.path.abspath(folder_paths.get_output_directory()))


def private_folder(name: str) -> Path:
    """Return a folder of ours below user/ that the web server does not hand out, such as the cache."""
    return Path(folder_paths.get_system_user_directory("alignguard"), name)


class Blocked(ExecutionBlocker):
    """An output that stops whoever uses it; the log says why, which the host tells an open browser only."""

    def __init__(self, reason: str):
        self._reason = reason

    @cached_property  # the host reads it when the output is used, and twice then
    def message(self) -> str:
        log.warning(self._reason)
        return self._reason


def progress(node_id: str) -> Callable[..., None]:
    """Return `report(step, total, ...)`: it first raises if the user cancelled, then moves the node's bar."""
    bar = comfy.utils.ProgressBar(1, node_id)

    def report(step: int, total: int, *_: Any) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(step, total)

    return report


def image_tensor(picture: Image.Image) -> Tensor:
    """Return a picture as the host's IMAGE, (1, h, w, 3) fp32 in [0, 1]."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255)[None]


def family_of(model: Any) -> tuple[str, int]:
    """Return the family's name and the text width of a MODEL; an unknown one has the host's name for it."""
    config = model.model.model_config
    names = [cls.__name__ for cls in type(config).__mro__]
    family = next((_FAMILIES[name] for name in names if name in _FAMILIES), names[0])
    return family, int(config.unet_config.get("context_dim") or 0)


def encoders(model: Any, clip: Any, vae: Any) -> Encoders:
    """Return the graph's own encoders, and a name for their weights."""

    def encode_image(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            return model.model.process_latent_in(vae.encode((pixels.movedim(1, -1) + 1) / 2))  # NHWC in 0..1

    name = f"{weights_hash(clip.cond_stage_model, vae.first_stage_model)} {clip.layer_idx}"
    if clip.patcher.patches:
        name += f" {clip.patcher.patches_uuid}"  # a LoRA on the text encoder: a name for this session only
    return Encoders(encode_image, lambda text: encode_prompt(clip, text), name)


def encode_prompt(clip: Any, text: str) -> Tensor:
    """Return (1, 77 n, width), an embedding as CLIPTextEncode makes it, with brackets as plain characters."""
    with torch.inference_mode():
        return clip.encode_from_tokens(clip.tokenize(text, disable_weights=True))


def encode_prompts(clip: Any, prompts: Sequence[str], on_progress: Callable[[int, int], None]) -> Tensor:
    """Return text embeddings, normal tensors, (len(prompts), 77, width); equal prompts are encoded once."""
    embeds: dict[str, Tensor] = {}
    for prompt in (unique := dict.fromkeys(prompts)):
        embeds[prompt] = encode_prompt(clip, prompt)[:, :77]
        on_progress(len(embeds), len(unique))
    with torch.inference_mode(False):
        return torch.cat([embeds[prompt].to("cpu", torch.float32, copy=True) for prompt in prompts])


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


def apply_expert(
    model: Any, expert: SafetyExpert, *, strength: float, start_percent: float = 0.0, end_percent: float = 1.0
) -> tuple[Any, str]:
    """Return a MODEL with the expert on it, and a sentence about the outcome.

    Over the whole range the weights are patched as the stock LoRA loader does it, to the same bits.

    Args:
        model: MODEL; it is not changed.
        expert: what to apply.
        strength: factor of the update; 0 returns the model as it is.
        start_percent: share of the sampling before the expert is switched on, in [0, end_percent).
        end_percent: share after which it is switched off, up to 1.

    Raises:
        ValueError: if the range is empty, the expert is for another family, or no layer matches.
    """
    if not 0 <= start_percent < end_percent <= 1:
        raise ValueError(
            f"start_percent must be below end_percent, in [0, 1], got {start_percent:g} and {end_percent:g}."
        )
    if strength == 0:
        return model, "Strength 0: the model is unchanged."
    check_family(expert, *family_of(model))
    patches, found = _patches(model, expert)
    if not found.matched:
        raise ValueError(f"{expert.name}: {found.sentence()} Load a checkpoint of the line it was made for.")
    if found.missing:
        log.warning("%s: %s", expert.name, found.sentence())
    patched = model.clone()
    if (start_percent, end_percent) == (0, 1):
        patched.add_patches(patches, strength)
    else:
        _add_scheduled(patched, patches, strength, start_percent, end_percent)
    return patched, found.sentence()


def _patches(model: Any, expert: SafetyExpert) -> tuple[dict, Coverage]:
    """Return the host's patches of the layers the model has in that shape, and which ones these are."""
    keys = comfy.lora.model_lora_keys_unet(model.model, {})
    shapes = {key: weight.shape for key, weight in model.model.state_dict().items()}
    targets = {}
    for module, layer in expert.layers.items():
        key = keys.get(kohya_name(module))
        shape = shapes.get(key)
        if shape and (shape[0], shape[1:].numel()) == (layer.d_out, layer.d_in):
            targets[module] = key
    state = to_kohya({module: expert.layers[module] for module in targets})
    patches = comfy.lora.load_lora(state, {kohya_name(module): key for module, key in targets.items()})
    return patches, coverage(expert.layers, targets)


def _add_scheduled(model: Any, patches: dict, strength: float, start: float, end: float) -> None:
    """Switch the patches by the host's own weight hooks, on every conditioning of a sampling run."""
    hook = comfy.hooks.WeightHook()
    model.add_hook_patches(hook, patches, strength)

    def sample(executor: Any, *args: Any, **kwargs: Any) -> Any:
        current = hook.clone()
        current.hook_keyframe = _keyframes(start, end)  # new for each run: keyframes remember where they were
        group = comfy.hooks.HookGroup()
        group.add(current)
        combined = {None: group}
        for conds in executor.class_obj.conds.values():
            for cond in conds:
                own = cond.get("hooks")
                if own not in combined:
                    combined[own] = own.clone_and_combine(group)
                cond["hooks"] = combined[own]
        return executor(*args, **kwargs)

    model.add_wrapper(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, sample)


def _keyframes(start: float, end: float) -> comfy.hooks.HookKeyframeGroup:
    frames = comfy.hooks.HookKeyframeGroup()
    switches = [(0.0, 0.0)] * (start > 0) + [(1.0, start)] + [(0.0, end)] * (end < 1)
    for factor, percent in switches:
        frames.add(comfy.hooks.HookKeyframe(factor, percent, guarantee_steps=0))
    return frames


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
            "V_PREDICTION models such as SD 1.5 and SD 2.1. Connect the MODEL of such a loader itself."
        )
    settings = model.model.model_config.sampling_settings
    family = identify(model.model.diffusion_model.state_dict())
    return family.predicting(_PREDICTIONS[kind.name], zero_terminal_snr=bool(settings.get("zsnr")))
