"""Images on their way between the host and the library.

The host's IMAGE is (n, h, w, 3), the library's images are (n, 3, h, w); both are fp32 in [0, 1].
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_VIDEO = 3  # axes of a latent with frames, beside those of the batch and the channels


def pictures_of(image: Tensor) -> Tensor:
    """Return an IMAGE without alpha, (n, 3, h, w) fp32 in [0, 1] on the CPU."""
    return image[..., :3].movedim(-1, 1).to("cpu", torch.float32).clamp(0, 1)


def image_of(pictures: Tensor) -> Tensor:
    """Return images (n, 3, h, w) as the host's IMAGE, (n, h, w, 3)."""
    return pictures.movedim(1, -1).contiguous()


def image_tensor(picture: Image.Image) -> Tensor:
    """Return a PIL image as the host's IMAGE, (1, h, w, 3) fp32 in [0, 1]."""
    return torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32) / 255)[None]


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


def vae_latents(vae: Any) -> Callable[[Tensor], Tensor] | None:
    """Return a function from images to latents of a VAE; None without a VAE.

    It takes images (n, 3, h, w) in [0, 1] and returns (n, channels, height, width), fp32 on the CPU.
    """
    if vae is None:
        return None

    def latents(pictures: Tensor) -> Tensor:
        image = image_of(pictures)
        # a VAE of videos takes several images for the frames of one video
        parts = image.split(1) if vae.latent_dim == _VIDEO else [image]
        with torch.inference_mode():
            encoded = torch.cat([without_frames(vae.encode(part)) for part in parts])
        return encoded.to("cpu", torch.float32)

    return latents


def without_frames(latents: Tensor) -> Tensor:
    """Return latents (n, channels, height, width), also where the host gives each image one frame."""
    return latents.squeeze(2) if latents.ndim == 2 + _VIDEO else latents


def as_in_host(latents: Tensor, latent_format: Any) -> Tensor:
    """Return latents (n, channels, height, width) with the axis of one frame that some formats have."""
    return latents.unsqueeze(2) if latent_format.latent_dimensions == _VIDEO else latents
