"""The CLIP and VAE of a graph, as functions of plain tensors."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ...training.models import Family
from ...training.models.conditioning import LATENT_STEP, Conditioning
from ...training.models.flow import FlowFamily
from ...training.models.hashes import AS_ENCODERS, weights_hash
from ...training.models.tokenizer import END_MARK, NUM_TOKENS
from ...training.pairs.encode import Encoders
from .pictures import without_frames
from .text_adapter import adapted, adapter_id

if TYPE_CHECKING:
    from ...training.guards import GuardEncoder

_PAST_ALL_LAYERS = -1000  # CLIP's `layer` that means: after the last one and its norm
_BESIDE_CLIP_L = {"clip_l", "clip_g"}  # the encoders of SD 1.5 and SDXL, which read prompts with CLIP-L
_guard_ids: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # text encoder -> hash, which takes a second
# Checkpoints lack these weights and no UNet reads what they produce. The host leaves them uninitialised, so
# hashing them would give one file another name at each loading.
_NEVER_READ = ("clip_l.transformer.text_projection.weight", "clip_h.transformer.text_projection.weight")


def encoders(model: Any, clip: Any, vae: Any, family: Family | FlowFamily) -> Encoders:
    """Return the encoders of the graph, for the family of its MODEL."""

    def encode_image(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            latents = vae.encode((pixels.movedim(1, -1) + 1) / 2)  # NHWC in 0..1
            return without_frames(model.model.process_latent_in(latents))

    name = " ".join(filter(None, (encoders_hash(clip, vae), str(clip.layer_idx), adapter_id(model))))
    if clip.patcher.patches:
        name += f" {clip.patcher.patches_uuid}"  # a LoRA on the text encoder: a new name in each session
    return Encoders(
        encode_image,
        lambda text: encode_prompt(model, clip, text, family),
        name,
        family.latent_channels,
        takes_any_length=isinstance(family, FlowFamily),
        latent_step=latent_step(family),
    )


def latent_step(family: Family | FlowFamily) -> int:
    """Return the pixels per latent of a family, in height and width."""
    return family.latent_step if isinstance(family, FlowFamily) else LATENT_STEP


def encoders_hash(clip: Any, vae: Any, on_progress: Callable[[int], None] | None = None) -> str:
    """Return a hash of the weights of a CLIP and a VAE, or of a CLIP alone; see `weights_hash`."""
    models = (clip.cond_stage_model, *([vae.first_stage_model] if vae is not None else []))
    return weights_hash(*models, without=_NEVER_READ, rounded=AS_ENCODERS, on_progress=on_progress)


def encode_prompt(model: Any, clip: Any, text: str, family: Family | FlowFamily) -> Conditioning:
    """Encode a prompt as CLIPTextEncode and the network do, but with brackets as plain characters.

    Returns:
        Embeddings, (1, 77 n, width), of a flow (1, tokens, width), and the pooled vector if the family reads
        one.

    Raises:
        ValueError: if the CLIP is not one of the family.
    """
    with torch.inference_mode():
        encoded = clip.encode_from_tokens(plain_tokens(clip, text), return_pooled=True, return_dict=True)
    width = encoded["cond"].shape[-1]
    if width != family.text_width:
        raise ValueError(
            f"this CLIP gives embeddings of width {width}, but {family.label} expects {family.text_width}. "
            "Connect the CLIP of the same checkpoint as the MODEL."
        )
    with torch.inference_mode():
        embeds = adapted(model, encoded)
    return Conditioning(embeds, encoded["pooled_output"] if family.pooled_width else None)


def encode_text(clip: Any, text: str) -> Conditioning:
    """Encode a prompt as CLIPTextEncode, with brackets as plain characters, and its pooled vector if any."""
    with torch.inference_mode():
        return Conditioning(*clip.encode_from_tokens(plain_tokens(clip, text), return_pooled=True))


def plain_tokens(clip: Any, text: str) -> Any:
    """Return the tokens of a prompt, with brackets as plain characters."""
    try:
        return clip.tokenize(text, disable_weights=True)
    except TypeError:  # a tokenizer that knows no weights, such as Z-Image's, says so itself
        return clip.tokenize(text)


def guard_encoder(clip: Any) -> "GuardEncoder":
    """Return the CLIP-L of a CLIP as guards read it: the last layer, whatever the CLIP skip, no weights.

    Raises:
        ValueError: if there is no CLIP, it has no CLIP-L, or a LoRA changes it.
    """
    from ...training.guards.encoder import NO_CLIP_L, GuardEncoder, weights_id, with_summary

    if clip is None:
        raise ValueError("this guard reads prompts with the checkpoint's CLIP. Connect it to clip.")
    part = getattr(clip.cond_stage_model, "clip_l", None)
    if part is None or not _reads_clip_l(clip.cond_stage_model):
        raise ValueError(NO_CLIP_L)
    if clip.patcher.patches:
        raise ValueError(
            "a LoRA changes this CLIP, so the guard's scores would be wrong. Connect the CLIP of the "
            "checkpoint directly; the LoRA may still change the one that encodes the prompt."
        )
    clip.load_model()  # removes what a LoRA of another branch left in the weights
    if part not in _guard_ids:
        _guard_ids[part] = weights_id(part.transformer.state_dict())

    def blocks(prompt: str) -> list[Tensor]:
        with torch.inference_mode():
            tokens = clip.tokenize(prompt, disable_weights=True)["l"]
            embeds = _last_states(clip, part, tokens)
        with torch.inference_mode(False):
            states = embeds.clone().split(NUM_TOKENS)  # (77, 768) each
        ends = [_end_of([token for token, *_ in block]) for block in tokens]
        return [with_summary(rows[: end + 1]) for rows, end in zip(states, ends, strict=False)]

    return GuardEncoder("clip", _guard_ids[part], "CLIP-L of the checkpoint", blocks)


def _last_states(clip: Any, part: Any, tokens: Any) -> Tensor:
    """Return what one text encoder of a CLIP makes of tokens after its last layer and norm, fp32 on the CPU.

    The encoder is asked by itself: newer hosts tell a whole CLIP its device after its layer, and on being
    told anything, an encoder that usually skips layers, as those of SDXL and SD 3 do, skips them again. An
    older host overlooks the device, and every host forgets both when the CLIP encodes the next prompt.

    Returns:
        States, (77 n, width).
    """
    clip.load_model()
    part.reset_clip_options()
    part.set_clip_options({"layer": _PAST_ALL_LAYERS, "execution_device": clip.patcher.load_device})
    return part.encode_token_weights(tokens)[0].float().cpu()[0]


def _reads_clip_l(text_encoders: Any) -> bool:
    """Return whether these are SD 1.5's, SDXL's or SD 3's; others use no more than the summary of CLIP-L."""
    names = {name for name, _ in text_encoders.named_children()}
    return names <= _BESIDE_CLIP_L | ({"t5xxl"} if _is_sd3(text_encoders) else set())


def _is_sd3(text_encoders: Any) -> bool:
    """Return whether these are SD 3's, the only ones of the three kinds with no further one."""
    return all(hasattr(text_encoders, name) for name in ("clip_l", "clip_g", "t5xxl")) and not hasattr(
        text_encoders, "llama"
    )


def _end_of(tokens: Sequence[Any]) -> int:
    """Return the place of the first end mark; a token may also be the vector of a textual inversion."""
    ends = (place for place, token in enumerate(tokens) if isinstance(token, int) and token == END_MARK)
    return next(ends, len(tokens) - 1)


def changed_conditioning(conditioning: Any, change: Callable[[Conditioning], Conditioning]) -> Any:
    """Return a CONDITIONING with `change` applied to every encoded prompt in it, and the rest unchanged."""
    changed = []
    for embeds, extra in conditioning:
        encoded = change(Conditioning(embeds, extra.get("pooled_output")))
        pooled = {} if encoded.pooled is None else {"pooled_output": encoded.pooled}
        changed.append([encoded.text_embeds, {**extra, **pooled}])
    return changed


def encode_prompts(
    model: Any,
    clip: Any,
    prompts: Sequence[str],
    family: Family | FlowFamily,
    on_progress: Callable[[int, int], None],
) -> Conditioning:
    """Encode several prompts, each different one once.

    Returns:
        Embeddings, (prompts, 77, width), of a flow (prompts, most tokens, width), and pooled vectors: fp32 on
        the CPU, not inference tensors.
    """
    encoded: dict[str, Conditioning] = {}
    for prompt in (unique := dict.fromkeys(prompts)):
        whole = encode_prompt(model, clip, prompt, family)
        last = None if isinstance(family, FlowFamily) else NUM_TOKENS
        encoded[prompt] = Conditioning(whole.text_embeds[:, :last], whole.pooled)
        on_progress(len(encoded), len(unique))
    with torch.inference_mode(False):
        return Conditioning.concatenate(
            [encoded[prompt].to("cpu", torch.float32, copy=True) for prompt in prompts]
        )
