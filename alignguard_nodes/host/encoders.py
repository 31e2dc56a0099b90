"""The CLIP and VAE of a graph, as functions of plain tensors."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...training.families.weights_hash import weights_hash


class Encoders(NamedTuple):
    """What `training.data.cache.encode_pairs` needs: two functions and the name of their weights."""

    image: Callable[[Tensor], Tensor]
    prompt: Callable[[str], Tensor]
    id: str


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
