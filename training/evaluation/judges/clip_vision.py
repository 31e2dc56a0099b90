"""CLIP image embeddings from a CLIP on disk, for judges and CLIPScore outside ComfyUI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from ..judge import Embed

if TYPE_CHECKING:
    from transformers import CLIPModel

_MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training images, per channel
_SPREAD = (0.26862954, 0.26130258, 0.27577711)


def load_clip(folder: Path, use: str, device: torch.device | str = "cpu") -> CLIPModel:
    """Return a frozen CLIP.

    Args:
        folder: as transformers saves a CLIP: config.json and model.safetensors.
        use: its purpose, for the error.
        device: to run on.

    Raises:
        ValueError: if there is no such model, or if it lacks weights.
    """
    from transformers import CLIPModel  # late: a broken install must not remove the nodes

    try:
        model, loading = CLIPModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        if loading["missing_keys"] or loading["mismatched_keys"]:  # transformers fills these at random
            raise ValueError("weights are missing")
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{folder} cannot be used for {use}. It must hold config.json and model.safetensors of a whole "
            f"CLIP, as transformers saves it ({type(error).__name__})."
        ) from error
    return model.requires_grad_(False).eval().to(device)


def load_clip_vision(folder: Path, device: torch.device | str = "cpu") -> Embed:
    """Return a function from images (n, 3, h, w) in [0, 1] to CLIP image embeddings (n, width).

    Args:
        folder: as transformers saves a CLIP: config.json and model.safetensors.
        device: to run on.

    Raises:
        ValueError: if there is no such model, or if it lacks weights.
    """
    model = load_clip(folder, "judges", device)
    side = model.config.vision_config.image_size

    def embed(images: Tensor) -> Tensor:
        with torch.inference_mode():
            hidden = model.vision_model(pixel_values=clip_pixels(images, side).to(device))
            embeds = model.visual_projection(hidden.pooler_output)
        return embeds.to("cpu", torch.float32)

    return embed


def clip_pixels(images: Tensor, side: int) -> Tensor:
    """Resize, centre-crop and normalise images (n, 3, h, w) in [0, 1] for CLIP: (n, 3, side, side)."""
    height, width = images.shape[-2:]
    scale = side / min(height, width)
    size = (max(side, round(height * scale)), max(side, round(width * scale)))
    pixels = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
    top, left = ((length - side) // 2 for length in size)
    mean, spread = (images.new_tensor(values).view(1, 3, 1, 1) for values in (_MEAN, _SPREAD))
    return (pixels[:, :, top : top + side, left : left + side] - mean) / spread
