"""Hashes that identify what draws: a MODEL, CLIP and VAE with everything that nodes have put on them."""

from collections.abc import Callable
from typing import Any

import comfy.model_management

from ...training.models.hashes import AS_ENCODERS, content_hash, weights_hash
from .encoders import encoders_hash

# attributes of a MODEL, CLIP or VAE that nodes after the loader may have changed
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
_PRECISION = ("manual_cast_dtype",)  # an object patch: the type to compute in, no part of the content
_CLIP_CHANGES = ("layer_idx", "tokenizer_options", "apply_hooks_to_conds", "use_clip_schedule")


def drawing_facts(
    model: Any, clip: Any, vae: Any, on_progress: Callable[[int, int], None] | None = None
) -> dict[str, str]:
    """Return hashes of the loaders' weights, and of everything that nodes have put on them since.

    They are the same on every host, however it loads the weights and whichever type it keeps them in. A
    LoRA, an expert, another sampling or a CLIP skip is identified by its content, which is the same whenever
    and however often it is applied.

    Args:
        model: MODEL.
        clip: CLIP.
        vae: VAE; None: nothing is decoded.
        on_progress: called with (weights read, weights); any exception it raises stops the reading.

    Returns:
        `model` and `encoders`, and `patches` if nodes have put anything on them.

    Raises:
        ValueError: if nodes have put something on them whose content cannot be hashed.
    """
    comfy.model_management.unload_all_models()  # removes the patches of every branch from shared weights
    patchers = [model, clip.patcher, *([vae.patcher] if vae is not None else [])]
    modules = [patcher.model for patcher in patchers]
    modules[0] = model.model.diffusion_model
    counts = [len(module.state_dict()) for module in modules]
    report = on_progress or (lambda done, total: None)
    hashes = {
        "model": weights_hash(
            modules[0], rounded=AS_ENCODERS, on_progress=lambda done: report(done, sum(counts))
        ),
        "encoders": encoders_hash(clip, vae, lambda done: report(counts[0] + done, sum(counts))),
    }
    changes = [_fields(patcher, _CHANGES) for patcher in patchers]
    changes.append(_fields(clip, _CLIP_CHANGES))
    return hashes | ({"patches": _patches_hash(changes)} if any(changes) else {})


def _fields(owner: Any, names: tuple[str, ...]) -> dict[str, Any]:
    fields = {name: _without_empty(getattr(owner, name, None)) for name in names}
    if objects := fields.get("object_patches"):
        fields["object_patches"] = {name: value for name, value in objects.items() if name not in _PRECISION}
    return {name: value for name, value in fields.items() if value}


def _without_empty(value: Any) -> Any:
    """Return a dict without empty entries, because the host creates some before they are needed."""
    if not isinstance(value, dict):
        return value
    entries = {name: _without_empty(entry) for name, entry in value.items()}
    return {name: entry for name, entry in entries.items() if not isinstance(entry, dict | None) or entry}


def _patches_hash(changes: list[dict[str, Any]]) -> str:
    try:
        return content_hash(changes, "it")
    except ValueError as error:
        raise ValueError(
            "this MODEL, CLIP or VAE carries something whose content cannot be hashed, so pairs made with it "
            f"could not be distinguished from others: {error} Connect one without it."
        ) from error
