"""CLIP's text encoders of a checkpoint: a prompt to the embeddings that ComfyUI's CLIPTextEncode gives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..system.tensors import WithoutPrefix
from .autoencoder import load_frozen
from .conditioning import Conditioning
from .family import ClipKind, Family
from .tokenizer import load_tokenizer, num_too_long, token_ids, warn_of_cut

_ENDS = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")  # in this order in one tensor


def from_open_clip(state: Mapping[str, Tensor], *, drop_last: bool) -> dict[str, Tensor]:
    """Return the tensors by transformers' names.

    Args:
        state: tensors without a prefix, such as `transformer.resblocks.0.ln_1.weight`; all of the layers.
        drop_last: leave out the last layer, so that the final norm follows the one before it.

    Returns:
        Tensors such as `encoder.layers.0.layer_norm1.weight`; what is not known keeps its name.
    """
    layers = [int(found[1]) for found in map(_LAYER.fullmatch, state) if found]
    last = max(layers, default=0)
    renamed: dict[str, Tensor] = {}
    for name in state:
        found = _LAYER.fullmatch(name)
        if name in ("logit_scale", "attn_mask") or (drop_last and found and int(found[1]) == last):
            continue
        if name == "text_projection":  # multiplied from the right there
            renamed["text_projection.weight"] = state[name].T
        elif found:
            renamed |= _layer(f"encoder.layers.{found[1]}.", found[2], state[name])
        else:
            renamed[_ENDS.get(name, name)] = state[name]
    return renamed


def _layer(prefix: str, name: str, tensor: Tensor) -> dict[str, Tensor]:
    if name.startswith("attn.in_proj_"):
        kind = name.removeprefix("attn.in_proj_")
        parts = zip(_PROJECTIONS, tensor.chunk(3), strict=True)
        return {f"{prefix}self_attn.{part}.{kind}": own for part, own in parts}
    part, _, kind = name.rpartition(".")
    return {f"{prefix}{_PARTS.get(part, part)}.{kind}": tensor}


HEAD_WIDTH = 64  # of every CLIP text encoder: heads cannot be read off the shapes

_OPTIONAL = ("embeddings.position_ids", "logit_scale")  # in some files, of no use here


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """The text encoders of a model and their tokenizer.

    Args:
        models: CLIPTextModel of transformers, with projection where pooled; frozen, one for each of `kinds`.
        kinds: of the family.
        tokenizer: CLIPTokenizer of transformers; the same words for all of them.
    """

    models: tuple[nn.Module, ...]
    kinds: tuple[ClipKind, ...]
    tokenizer: Any

    @torch.no_grad()
    def encode(self, prompt: str) -> Conditioning:
        """Return a prompt as one row of 77 tokens, on the models' device.

        Brackets are text here, not weights; beyond 77 tokens the prompt is cut, see `warn_of_long`.
        """
        states, pooled = [], None
        for model, kind in zip(self.models, self.kinds, strict=True):
            ids = token_ids([prompt], self.tokenizer, zero_padded=kind.open_clip)  # (1, 77)
            found = model(ids.to(next(model.parameters()).device), output_hidden_states=kind.penultimate)
            states.append(found.hidden_states[-2] if kind.penultimate else found.last_hidden_state)
            pooled = found.text_embeds if kind.pooled else pooled
        return Conditioning(torch.cat(states, dim=-1), pooled)

    def warn_of_long(self, prompts: Iterable[str]) -> None:
        """Log one warning that counts the prompts `encode` cuts, if there are any."""
        prompts = list(prompts)
        warn_of_cut(num_too_long(prompts, self.tokenizer) if prompts else 0)


def text_encoder_from_native(tensors: Mapping[str, Tensor], family: Family) -> TextEncoder:
    """Build the text encoders from the tensors of a checkpoint.

    Args:
        tensors: under the names of the checkpoint; those of other parts are not read.
        family: gives prefixes, widths and kinds.

    Raises:
        ValueError: if there is none, its width is another, or a tensor is missing or misshapen.
        FileNotFoundError: if no ComfyUI with CLIP's vocabulary is found.
    """
    models = tuple(text_model(_part(tensors, kind), kind, family.label) for kind in family.text_encoders)
    return TextEncoder(models, family.text_encoders, load_tokenizer())


def text_model(state: Mapping[str, Tensor], kind: ClipKind, label: str) -> nn.Module:
    """Return transformers' model of a text encoder, fp32, frozen.

    Args:
        state: its tensors without prefix, with or without `text_model.`, or under OpenCLIP's names.
        kind: what it should be.
        label: name of the family in errors.

    Raises:
        ValueError: as `text_encoder_from_native`.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection  # as in `native_unet`

    if kind.open_clip and "token_embedding.weight" in state:
        state = from_open_clip(state, drop_last=kind.spare_layer)
    optional = _OPTIONAL if kind.pooled else (*_OPTIONAL, "text_projection")
    names = {name.removeprefix("text_model."): name for name in state}
    names = {short: name for short, name in names.items() if not short.startswith(optional)}
    with torch.device("meta"):
        model_class = CLIPTextModelWithProjection if kind.pooled else CLIPTextModel
        model = model_class(CLIPTextConfig(**_config(state, names, kind, label)))
    # transformers 5 dropped the prefix of version 4, but not in the model with projection
    own = {name.removeprefix("text_model."): name for name in model.state_dict()}
    renamed = {own.get(short, short): state[name] for short, name in names.items()}
    load_frozen(model, renamed, "text encoder")
    _fill_positions(model)
    return model


def _part(tensors: Mapping[str, Tensor], kind: ClipKind) -> Mapping[str, Tensor]:
    """Return the tensors of one encoder, from behind whichever of its prefixes has some."""
    found = (WithoutPrefix(tensors, prefix) for prefix in kind.prefixes)
    return next((state for state in found if len(state)), {})


def _config(
    state: Mapping[str, Tensor], names: Mapping[str, str], kind: ClipKind, label: str
) -> dict[str, Any]:
    needed = ("embeddings.token_embedding.weight", "encoder.layers.0.mlp.fc1.weight")
    missing = [name for name in needed if name not in names]
    if missing:
        raise ValueError(
            f"the checkpoint has no CLIP text encoder: {missing[0]} is missing behind {kind.prefixes[0]}. "
            f"Load a complete {label} checkpoint with its text encoder inside."
        )
    vocabulary, width = state[names[needed[0]]].shape
    if width != kind.width:
        raise ValueError(
            f"the text encoder of {label} must be {kind.width} wide, got {width}. "
            f"Load an unmodified {label} checkpoint."
        )
    layers = {int(name.split(".")[2]) for name in names if name.startswith("encoder.layers.")}
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": state[names[needed[1]]].shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": width // HEAD_WIDTH,
        "hidden_act": "gelu" if kind.open_clip else "quick_gelu",
        "projection_dim": width,
    }


def _fill_positions(model: nn.Module) -> None:
    """Number the positions: the only buffer, not stored, still without values from the meta device."""
    for name, buffer in list(model.named_buffers()):
        module, _, own_name = name.rpartition(".")
        positions = torch.arange(buffer.shape[-1]).expand(buffer.shape)
        model.get_submodule(module).register_buffer(own_name, positions, persistent=False)
