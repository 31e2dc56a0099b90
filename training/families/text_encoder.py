"""CLIP's text encoder of a checkpoint: a prompt to the embeddings that ComfyUI's CLIPTextEncode gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..conditioning import Conditioning
from .autoencoder import load_frozen
from .family import Family
from .open_clip import CHECKPOINT_PREFIXES as OPEN_CLIP_PREFIXES
from .open_clip import from_open_clip
from .tokenizer import load_tokenizer, num_too_long, token_ids, warn_of_cut

CHECKPOINT_PREFIX = "cond_stage_model.transformer."
CHECKPOINT_PREFIXES = (CHECKPOINT_PREFIX, *OPEN_CLIP_PREFIXES)
HEAD_WIDTH = 64  # of every CLIP text encoder: heads cannot be read off the shapes

_OPTIONAL = ("embeddings.position_ids", "text_projection")  # in some files, of no use here


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A text encoder and its tokenizer.

    Args:
        model: CLIPTextModel of transformers, frozen.
        tokenizer: CLIPTokenizer of transformers.
        zero_padded: whether prompts are padded by token 0 instead of the end mark.
    """

    model: nn.Module
    tokenizer: Any
    zero_padded: bool = False

    @torch.no_grad()
    def encode(self, prompt: str) -> Conditioning:
        """Return the last hidden states of a prompt, one row of (77, width), on the model's device.

        Brackets are text here, not weights; beyond 77 tokens the prompt is cut, see `warn_of_long`.
        """
        ids = token_ids([prompt], self.tokenizer, zero_padded=self.zero_padded)  # (1, 77)
        return Conditioning(self.model(ids.to(next(self.model.parameters()).device)).last_hidden_state)

    def warn_of_long(self, prompts: Iterable[str]) -> None:
        """Log one warning that counts the prompts `encode` cuts, if there are any."""
        prompts = list(prompts)
        warn_of_cut(num_too_long(prompts, self.tokenizer) if prompts else 0)


def text_encoder_from_native(state: Mapping[str, Tensor], family: Family) -> TextEncoder:
    """Build the text encoder from tensors under the names of a checkpoint.

    Args:
        state: tensors without the prefix of `CHECKPOINT_PREFIXES` they stand behind, with or without
            `text_model.`, or under OpenCLIP's names.
        family: gives the width and the kind.

    Raises:
        ValueError: if there is none, its width is another, or a tensor is missing or misshapen.
        FileNotFoundError: if no ComfyUI with CLIP's vocabulary is found.
    """
    return TextEncoder(text_model(state, family), load_tokenizer(), family.open_clip)


def text_model(state: Mapping[str, Tensor], family: Family) -> nn.Module:
    """Return transformers' CLIPTextModel with the weights of `text_encoder_from_native`, fp32, frozen."""
    from transformers import CLIPTextConfig, CLIPTextModel  # imported late, as in `native_unet`

    if family.open_clip and "token_embedding.weight" in state:
        state = from_open_clip(state)
    names = {name.removeprefix("text_model."): name for name in state}
    names = {short: name for short, name in names.items() if not short.startswith(_OPTIONAL)}
    with torch.device("meta"):
        model = CLIPTextModel(CLIPTextConfig(**_config(state, names, family)))
    # transformers 5 dropped the prefix of version 4
    prefix = "text_model." if any(name.startswith("text_model.") for name in model.state_dict()) else ""
    load_frozen(model, {prefix + short: state[name] for short, name in names.items()}, "text encoder")
    _fill_positions(model)
    return model


def _config(state: Mapping[str, Tensor], names: Mapping[str, str], family: Family) -> dict[str, Any]:
    needed = ("embeddings.token_embedding.weight", "encoder.layers.0.mlp.fc1.weight")
    missing = [name for name in needed if name not in names]
    if missing:
        raise ValueError(
            f"the checkpoint has no CLIP text encoder: {CHECKPOINT_PREFIX}text_model.{missing[0]} is "
            f"missing. Load a complete {family.label} checkpoint with its text encoder inside."
        )
    vocabulary, width = state[names[needed[0]]].shape
    if width != family.text_width:
        raise ValueError(
            f"the text encoder of {family.label} must be {family.text_width} wide, got {width}. "
            f"Load an unmodified {family.label} checkpoint."
        )
    layers = {int(name.split(".")[2]) for name in names if name.startswith("encoder.layers.")}
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": state[names[needed[1]]].shape[0],
        "num_hidden_layers": len(layers),
        "num_attention_heads": width // HEAD_WIDTH,
        "hidden_act": "gelu" if family.open_clip else "quick_gelu",
    }


def _fill_positions(model: nn.Module) -> None:
    """Number the positions: the only buffer, not stored, still without values from the meta device."""
    for name, buffer in list(model.named_buffers()):
        module, _, own_name = name.rpartition(".")
        positions = torch.arange(buffer.shape[-1]).expand(buffer.shape)
        model.get_submodule(module).register_buffer(own_name, positions, persistent=False)
