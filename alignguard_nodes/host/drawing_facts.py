"""A name for what draws: a MODEL, CLIP and VAE with everything that nodes have put on them."""

from collections.abc import Callable
from typing import Any

import comfy.model_management

from ...training.models.hashes import content_hash, weights_hash
from .encoders import encoders_hash

# what nodes between a loader and us may have put on a MODEL or CLIP
_CHANGES = (
    "patches",
    "object_patches",
    "weight_wrapper_patches",
    "hook_patches",
    "forced_hooks",
    "model_options",
    "wrappers",
    "callbacks",
    "injections",
    "attachments",
    "additional_models",
)
_CLIP_CHANGES = ("layer_idx", "tokenizer_options", "apply_hooks_to_conds", "use_clip_schedule")


def drawing_facts(
    model: Any, clip: Any, vae: Any, on_progress: Callable[[int, int], None] | None = None
) -> dict[str, str]:
    """Return what names what draws: hashes of the loaders' weights, and of what was done to them since.

    A LoRA, an expert, another sampling or a CLIP skip is named by its content, which is the same whenever
    and however often it is applied.

    Args:
        model: MODEL.
        clip: CLIP.
        vae: VAE.
        on_progress: called with (weights read, weights); whatever it raises stops the reading.

    Raises:
        ValueError: if something was done to them whose content cannot be seen.
    """
    comfy.model_management.unload_all_models()  # takes the patches of every branch off the shared weights
    modules = (model.model.diffusion_model, clip.cond_stage_model, vae.first_stage_model)
    counts = [len(module.state_dict()) for module in modules]
    tell = on_progress or (lambda done, total: None)
    names = {
        "model": weights_hash(modules[0], on_progress=lambda done: tell(done, sum(counts))),
        "encoders": encoders_hash(clip, vae, lambda done: tell(counts[0] + done, sum(counts))),
    }
    changes = [_fields(each, _CHANGES) for each in (model, clip.patcher, vae.patcher)]
    changes.append(_fields(clip, _CLIP_CHANGES))
    return names | ({"patches": _patches_hash(changes)} if any(changes) else {})


def _fields(owner: Any, names: tuple[str, ...]) -> dict[str, Any]:
    found = {name: _without_empty(getattr(owner, name, None)) for name in names}
    return {name: value for name, value in found.items() if value}


def _without_empty(value: Any) -> Any:
    """Return a dict without the entries that hold nothing: hosts make them before they are needed."""
    if not isinstance(value, dict):
        return value
    held = {name: _without_empty(each) for name, each in value.items()}
    return {name: each for name, each in held.items() if not isinstance(each, dict | type(None)) or each}


def _patches_hash(changes: list[dict[str, Any]]) -> str:
    try:
        return content_hash(changes, "it")
    except ValueError as error:
        raise ValueError(
            "this MODEL, CLIP or VAE carries something that pairs made with it cannot be told apart by: "
            f"{error} Connect one without it."
        ) from error
