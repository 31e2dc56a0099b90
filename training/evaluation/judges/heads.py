"""Judges that are a head on CLIP image embeddings: reading the head's weights, checking the embeddings."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...system.tensors import open_tensors
from ..judge import JudgeParts


def read_head(judge: str, parts: JudgeParts, content: str) -> dict[str, Tensor]:
    """Return the weights of a head in fp32, from `<judge>.safetensors`.

    Args:
        judge: name of the judge.
        parts: names the folder.
        content: what the file must hold, for the error.

    Raises:
        ValueError: if there is no such file, or if it is a pickle or damaged.
    """
    path = (parts.heads or Path()) / f"{judge}.safetensors"
    if parts.heads is None or not path.is_file():
        raise ValueError(f"the judge {judge} needs {path}, which does not exist. It holds {content}.")
    with open_tensors(path) as tensors:
        return {name: tensors[name].float() for name in tensors}


def weights_id(tensors: Mapping[str, Tensor]) -> str:
    """Return 8 hexadecimal digits that identify the weights of a head in the version of its judge."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()[:8]


def embeddings(judge: str, parts: JudgeParts, images: Tensor, width: int) -> Tensor:
    """Return CLIP image embeddings (n, width), fp32.

    Raises:
        ValueError: if the CLIP Vision model gives embeddings of another width.
    """
    embeds = parts.embed(images).detach().to("cpu", torch.float32)
    if embeds.shape != (len(images), width):
        raise ValueError(
            f"the judge {judge} works on CLIP image embeddings of width {width}, but this CLIP Vision gives "
            f"{embeds.shape[-1]}. Load the one that the judge was made for: OpenAI's ViT-L/14 has width 768, "
            "B/16 and B/32 have 512."
        )
    return embeds
