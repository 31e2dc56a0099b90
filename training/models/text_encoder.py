"""The CLIP text encoders of a checkpoint: prompts to the embeddings that ComfyUI's CLIPTextEncode gives.

The tensors may have the names of transformers or of OpenCLIP.
"""

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

HEAD_WIDTH = 64  # of every CLIP text encoder; the shapes do not determine the number of heads

_UNUSED = ("embeddings.position_ids", "logit_scale")  # present in some files
_TOKEN_EMBEDDING = "embeddings.token_embedding.weight"  # (vocabulary, width)
_FIRST_MLP = "encoder.layers.0.mlp.fc1.weight"  # (intermediate width, width)

# OpenCLIP's names -> transformers' names
_OPEN_CLIP_ENDS = {
    "token_embedding.weight": _TOKEN_EMBEDDING,
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
_OPEN_CLIP_PARTS = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_OPEN_CLIP_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")
_OPEN_CLIP_UNUSED = ("logit_scale", "attn_mask")
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")  # OpenCLIP stacks them in this order in one tensor


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """The text encoders of a model and their tokenizer.

    Args:
        models: one frozen CLIPTextModel of transformers for each of `kinds`, with projection if pooled.
        kinds: text encoders of the family.
        tokenizer: CLIPTokenizer of transformers, shared by all models.
    """

    models: tuple[nn.Module, ...]
    kinds: tuple[ClipKind, ...]
    tokenizer: Any

    @torch.no_grad()
    def encode(self, prompt: str) -> Conditioning:
        """Return a prompt as one row of 77 tokens, on the models' device.

        Brackets are plain text, not weights. A prompt longer than 77 tokens is cut, see `warn_of_long`.
        """
        states, pooled = [], None
        for model, kind in zip(self.models, self.kinds, strict=True):
            ids = token_ids([prompt], self.tokenizer, zero_padded=kind.open_clip)  # (1, 77)
            encoded = model(ids.to(next(model.parameters()).device), output_hidden_states=kind.penultimate)
            states.append(encoded.hidden_states[-2] if kind.penultimate else encoded.last_hidden_state)
            pooled = encoded.text_embeds if kind.pooled else pooled
        return Conditioning(torch.cat(states, dim=-1), pooled)  # (1, 77, text width)

    def warn_of_long(self, prompts: Iterable[str]) -> None:
        """Log one warning with the number of prompts that `encode` cuts, if there are any."""
        prompts = list(prompts)
        warn_of_cut(num_too_long(prompts, self.tokenizer) if prompts else 0)


def text_encoder_from_native(tensors: Mapping[str, Tensor], family: Family) -> TextEncoder:
    """Build the text encoders from the tensors of a checkpoint.

    Args:
        tensors: all tensors under the names of the checkpoint; other parts of the model are not read.
        family: family of the model.

    Raises:
        ValueError: if a text encoder is missing or has another width, or a tensor is missing or misshapen.
        FileNotFoundError: if no ComfyUI with CLIP's vocabulary is found.
    """
    models = tuple(
        text_model(_encoder_tensors(tensors, kind), kind, family.label) for kind in family.text_encoders
    )
    return TextEncoder(models, family.text_encoders, load_tokenizer())


def _encoder_tensors(tensors: Mapping[str, Tensor], kind: ClipKind) -> Mapping[str, Tensor]:
    """Return the tensors of one encoder, without the prefix that this checkpoint uses; empty if missing."""
    candidates = (WithoutPrefix(tensors, prefix) for prefix in kind.prefixes)
    return next((state for state in candidates if len(state)), {})


def text_model(state: Mapping[str, Tensor], kind: ClipKind, label: str) -> nn.Module:
    """Return transformers' model of a text encoder, fp32, frozen.

    Args:
        state: its tensors without a prefix, with or without `text_model.`, or under OpenCLIP's names.
        kind: the expected encoder.
        label: name of the family in errors.

    Raises:
        ValueError: if the encoder is missing or has another width, or a tensor is missing or misshapen.
    """
    # imported late: a broken install must not remove the nodes
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    if kind.open_clip and "token_embedding.weight" in state:
        state = from_open_clip(state, drop_last=kind.spare_layer)
    unused = _UNUSED if kind.pooled else (*_UNUSED, "text_projection")
    names = {name.removeprefix("text_model."): name for name in state}
    names = {short: name for short, name in names.items() if not short.startswith(unused)}
    with torch.device("meta"):
        model_class = CLIPTextModelWithProjection if kind.pooled else CLIPTextModel
        model = model_class(CLIPTextConfig(**_config(state, names, kind, label)))
    # transformers 5 dropped the prefix of version 4, but not in the model with projection
    model_names = {name.removeprefix("text_model."): name for name in model.state_dict()}
    renamed = {model_names.get(short, short): state[name] for short, name in names.items()}
    load_frozen(model, renamed, "text encoder")
    _fill_positions(model)
    return model


def _config(
    state: Mapping[str, Tensor], names: Mapping[str, str], kind: ClipKind, label: str
) -> dict[str, Any]:
    missing = [name for name in (_TOKEN_EMBEDDING, _FIRST_MLP) if name not in names]
    if missing:
        raise ValueError(
            f"the checkpoint has no CLIP text encoder: {missing[0]} is missing under {kind.prefixes[0]}. "
            f"Load a complete {label} checkpoint with its text encoder inside."
        )
    vocabulary, width = state[names[_TOKEN_EMBEDDING]].shape
    if width != kind.width:
        raise ValueError(
            f"the text encoder of {label} must be {kind.width} wide, got {width}. "
            f"Load an unmodified {label} checkpoint."
        )
    layers = {int(name.split(".")[2]) for name in names if name.startswith("encoder.layers.")}
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": state[names[_FIRST_MLP]].shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": width // HEAD_WIDTH,
        "hidden_act": "gelu" if kind.open_clip else "quick_gelu",
        "projection_dim": width,
    }


def _fill_positions(model: nn.Module) -> None:
    """Fill the position ids, a buffer that is not stored and has no values on the meta device."""
    for name, buffer in list(model.named_buffers()):
        module, _, buffer_name = name.rpartition(".")
        positions = torch.arange(buffer.shape[-1]).expand(buffer.shape)
        model.get_submodule(module).register_buffer(buffer_name, positions, persistent=False)


def from_open_clip(state: Mapping[str, Tensor], *, drop_last: bool) -> dict[str, Tensor]:
    """Rename OpenCLIP's tensors to those of transformers.

    Args:
        state: tensors of all layers without a prefix, such as `transformer.resblocks.0.ln_1.weight`.
        drop_last: leave out the last layer, so that the final norm follows the layer before it.

    Returns:
        Tensors such as `encoder.layers.0.layer_norm1.weight`; an unknown tensor keeps its name.
    """
    layers = {name: match for name in state if (match := _OPEN_CLIP_LAYER.fullmatch(name))}
    last = max((int(match[1]) for match in layers.values()), default=0)
    renamed: dict[str, Tensor] = {}
    for name in state:
        layer = layers.get(name)
        if name in _OPEN_CLIP_UNUSED or (drop_last and layer and int(layer[1]) == last):
            continue
        if name == "text_projection":  # OpenCLIP multiplies by it from the right
            renamed["text_projection.weight"] = state[name].T
        elif layer:
            renamed |= _renamed_layer(f"encoder.layers.{layer[1]}.", layer[2], state[name])
        else:
            renamed[_OPEN_CLIP_ENDS.get(name, name)] = state[name]
    return renamed


def _renamed_layer(prefix: str, name: str, tensor: Tensor) -> dict[str, Tensor]:
    if name.startswith("attn.in_proj_"):
        kind = name.removeprefix("attn.in_proj_")  # weight or bias
        parts = zip(_PROJECTIONS, tensor.chunk(3), strict=True)
        return {f"{prefix}self_attn.{part}.{kind}": projection for part, projection in parts}
    part, _, kind = name.rpartition(".")
    return {f"{prefix}{_OPEN_CLIP_PARTS.get(part, part)}.{kind}": tensor}
