"""IMAGE and CLIP_VISION of a graph, as plain tensors."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def pictures_of(image: Tensor) -> Tensor:
    """Return the pictures of an IMAGE, (n, 3, h, w) fp32 in [0, 1] on the CPU, without alpha."""
    return image[..., :3].movedim(-1, 1).to("cpu", torch.float32).clamp(0, 1)


def image_of(pictures: Tensor) -> Tensor:
    """Return pictures (n, 3, h, w) as the host's IMAGE."""
    return pictures.movedim(1, -1).contiguous()


def clip_embed(clip_vision: Any) -> Callable[[Tensor], Tensor] | None:
    """Return pictures (n, 3, h, w) in [0, 1] to CLIP image embeddings (n, width); None for no CLIP Vision."""
    if clip_vision is None:
        return None

    def embed(pictures: Tensor) -> Tensor:
        with torch.inference_mode():
            found = clip_vision.encode_image(image_of(pictures), crop=True)["image_embeds"]
        return found.to("cpu", torch.float32)

    return embed
