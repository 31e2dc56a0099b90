"""The CLIP and VAE of a graph, as functions of plain tensors."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...training.models import Family
from ...training.models.conditioning import Conditioning
from ...training.models.hashes import weights_hash
from ...training.models.tokenizer import NUM_TOKENS
from ...training.pairs.encode import Encoders

# Checkpoints lack it and no UNet reads what it makes; the host leaves it as memory happened to be, so that
# each loading of one file would have another name.
_NEVER_READ = ("clip_l.transformer.text_projection.weight", "clip_h.transformer.text_projection.weight")


def encoders(model: Any, clip: Any, vae: Any, family: Family) -> Encoders:
    """Return the graph's own encoders, and a name for their weights; the family is the MODEL's."""

    def encode_image(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            return model.model.process_latent_in(vae.encode((pixels.movedim(1, -1) + 1) / 2))  # NHWC in 0..1

    name = f"{encoders_hash(clip, vae)} {clip.layer_idx}"
    if clip.patcher.patches:
        name += f" {clip.patcher.patches_uuid}"  # a LoRA on the text encoder: a name for this session only
    return Encoders(encode_image, lambda text: encode_prompt(clip, text, family), name)


def encoders_hash(clip: Any, vae: Any, on_progress: Callable[[int], None] | None = None) -> str:
    """Return what names the weights of a CLIP and a VAE, see `weights_hash`."""
    models = (clip.cond_stage_model, vae.first_stage_model)
    return weights_hash(*models, without=_NEVER_READ, on_progress=on_progress)


def encode_prompt(clip: Any, text: str, family: Family) -> Conditioning:
    """Return a prompt as CLIPTextEncode encodes it, (1, 77 n, width), with brackets as plain characters.

    Raises:
        ValueError: if the CLIP is not one of the family.
    """
    found = encode_text(clip, text)
    width = found.text_embeds.shape[-1]
    if width != family.text_width:
        raise ValueError(
            f"this CLIP gives embeddings {width} wide, but {family.label} takes "
            f"{family.text_width}. Connect the CLIP of the same checkpoint as the MODEL."
        )
    return found if family.pooled_width else Conditioning(found.text_embeds)


def encode_text(clip: Any, text: str) -> Conditioning:
    """Return a prompt as `encode_prompt`, of a CLIP of any family, with its pooled vector if it has one."""
    with torch.inference_mode():
        tokens = clip.tokenize(text, disable_weights=True)
        return Conditioning(*clip.encode_from_tokens(tokens, return_pooled=True))


def changed_conditioning(conditioning: Any, change: Callable[[Conditioning], Conditioning]) -> Any:
    """Return a CONDITIONING with every encoded prompt in it changed, and all else in it kept."""
    changed = []
    for embeds, extra in conditioning:
        found = change(Conditioning(embeds, extra.get("pooled_output")))
        pooled = {} if found.pooled is None else {"pooled_output": found.pooled}
        changed.append([found.text_embeds, {**extra, **pooled}])
    return changed


def encode_prompts(
    clip: Any, prompts: Sequence[str], family: Family, on_progress: Callable[[int, int], None]
) -> Conditioning:
    """Return a row of 77 tokens per prompt, normal tensors on the CPU; equal prompts are encoded once."""
    found: dict[str, Conditioning] = {}
    for prompt in (unique := dict.fromkeys(prompts)):
        own = encode_prompt(clip, prompt, family)
        found[prompt] = Conditioning(own.text_embeds[:, :NUM_TOKENS], own.pooled)
        on_progress(len(found), len(unique))
    with torch.inference_mode(False):
        return Conditioning.concatenate(
            [found[prompt].to("cpu", torch.float32, copy=True) for prompt in prompts]
        )
