"""What judges that are a head on CLIP image embeddings share: weights of their own, embeddings that fit."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...system.tensors import open_tensors
from ..judge import Parts


def read_head(judge: str, parts: Parts, how: str) -> dict[str, Tensor]:
    """Return the weights of a head in fp32, from `<judge>.safetensors`.

    Args:
        judge: its name.
        parts: gives the folder.
        how: what the file must hold, for the error.

    Raises:
        ValueError: if there is no such file, or it is a pickle or damaged.
    """
    path = (parts.heads or Path()) / f"{judge}.safetensors"
    if parts.heads is None or not path.is_file():
        raise ValueError(f"the judge {judge} needs {path}, which is not there. It holds {how}.")
    with open_tensors(path) as tensors:
        return {name: tensors[name].float() for name in tensors}


def weights_id(tensors: Mapping[str, Tensor]) -> str:
    """Return what names the weights of a head in its judge's version, 8 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()[:8]


def embeddings(judge: str, parts: Parts, images: Tensor, width: int) -> Tensor:
    """Return CLIP image embeddings (n, width), fp32.

    Raises:
        ValueError: if the CLIP Vision model gives embeddings of another width.
    """
    found = parts.embed(images).detach().to("cpu", torch.float32)
    if found.shape != (len(images), width):
        raise ValueError(
            f"the judge {judge} works on CLIP image embeddings of width {width}, and this CLIP Vision gives "
            f"{found.shape[-1]}. Load the one it was made for: ViT-L/14 of OpenAI has 768, B/16 and B/32 512."
        )
    return found
