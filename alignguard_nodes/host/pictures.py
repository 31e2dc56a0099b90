"""IMAGE and CLIP_VISION of a graph, as plain tensors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def pictures_of(image: Tensor) -> Tensor:
    """Return an IMAGE without alpha, (n, 3, h, w) fp32 in [0, 1] on the CPU."""
    return image[..., :3].movedim(-1, 1).to("cpu", torch.float32).clamp(0, 1)


def image_of(pictures: Tensor) -> Tensor:
    """Return images (n, 3, h, w) as the host's IMAGE, (n, h, w, 3)."""
    return pictures.movedim(1, -1).contiguous()


def clip_embed(clip_vision: Any) -> Callable[[Tensor], Tensor] | None:
    """Return a function from images to CLIP image embeddings; None without a CLIP Vision.

    It takes images (n, 3, h, w) in [0, 1] and returns (n, width), fp32 on the CPU.
    """
    if clip_vision is None:
        return None

    def embed(pictures: Tensor) -> Tensor:
        with torch.inference_mode():
            embeds = clip_vision.encode_image(image_of(pictures), crop=True)["image_embeds"]
        return embeds.to("cpu", torch.float32)

    return embed
