"""The part of a network that belongs to the encoding of prompts: Anima's adapter of Qwen's embeddings.

ComfyUI runs it once before it samples. Training caches what it returns, so it never runs in a step.
"""

from collections.abc import Mapping
from typing import Any

import comfy.model_management
from torch import Tensor

from ...training.models.hashes import weights_hash

_ADAPTER = "llm_adapter"


def adapted(model: Any, encoded: Mapping[str, Any]) -> Tensor:
    """Return the text embeddings that the network of a MODEL attends to, (1, tokens, width).

    Args:
        model: MODEL; with an adapter, it is loaded.
        encoded: what a CLIP returns of a prompt, by name.
    """
    if "t5xxl_ids" not in encoded or not hasattr(model.model.diffusion_model, _ADAPTER):
        return encoded["cond"]
    comfy.model_management.load_models_gpu([model])
    target = {"device": model.load_device, "dtype": model.model.get_dtype_inference()}
    return model.model.diffusion_model.preprocess_text_embeds(
        encoded["cond"].to(**target),
        encoded["t5xxl_ids"][None].to(model.load_device),
        t5xxl_weights=encoded["t5xxl_weights"][None, :, None].to(**target),
    )


def adapter_id(model: Any) -> str:
    """Return a name of the adapter's weights, patches included; empty if there is none."""
    adapter = getattr(model.model.diffusion_model, _ADAPTER, None)
    if adapter is None:
        return ""
    is_patched = any(f".{_ADAPTER}." in key for key in model.patches)
    return f"{weights_hash(adapter)}{f' {model.patches_uuid}' if is_patched else ''}"
