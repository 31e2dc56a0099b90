"""A text encoder of CLIP-L's shape whose weights are drawn from named seeds, so that none are stored.

A random transformer gives different words different embeddings. That is enough for the mini model, which
learned its few nouns, colours and grounds on these embeddings.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from ..models import FAMILIES
from ..models.text_encoder import text_model
from ..models.tokenizer import load_tokenizer, token_ids

LAYERS, WIDTH, TOKENS, VOCABULARY = 12, 768, 77, 49408
TOKEN_SPREAD, POSITION_SPREAD = 1.0, 0.5
IN_SPREAD, OUT_SPREAD = 0.02, 0.01  # small outputs keep the word embedding dominant in the residual stream


def text_encoder_state(rows: tuple[Tensor, Tensor] | None = None) -> dict[str, Tensor]:
    """Return all weights under the names of transformers' CLIPTextModel, fp16-exact fp32 tensors.

    Args:
        rows: token ids (n,) and rows (n, 768) that replace the drawn rows of these tokens.
    """
    tokens = drawn("token", (VOCABULARY, WIDTH), TOKEN_SPREAD)
    if rows is not None:
        tokens[rows[0]] = rows[1]
    state = {
        "embeddings.token_embedding.weight": tokens,
        "embeddings.position_embedding.weight": drawn("position", (TOKENS, WIDTH), POSITION_SPREAD),
        **_layer_norm("final_layer_norm"),
    }
    for index in range(LAYERS):
        layer = f"encoder.layers.{index}"
        state |= _layer_norm(f"{layer}.layer_norm1") | _layer_norm(f"{layer}.layer_norm2")
        for name in ("q_proj", "k_proj", "v_proj"):
            state |= _linear(f"{layer}.self_attn.{name}", WIDTH, WIDTH, IN_SPREAD)
        state |= _linear(f"{layer}.self_attn.out_proj", WIDTH, WIDTH, OUT_SPREAD)
        state |= _linear(f"{layer}.mlp.fc1", 4 * WIDTH, WIDTH, IN_SPREAD)
        state |= _linear(f"{layer}.mlp.fc2", WIDTH, 4 * WIDTH, OUT_SPREAD)
    return {f"text_model.{name}": tensor for name, tensor in state.items()}


def drawn(name: str, shape: tuple[int, ...], spread: float) -> Tensor:
    """Return normal numbers that depend on the name alone, fp16-exact fp32."""
    seed = (
        int.from_bytes(hashlib.sha256(f"alignguard mini text encoder {name}".encode()).digest()[:8], "big")
        >> 1
    )
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * spread).half().float()


def _linear(name: str, d_out: int, d_in: int, spread: float) -> dict[str, Tensor]:
    return {f"{name}.weight": drawn(name, (d_out, d_in), spread), f"{name}.bias": torch.zeros(d_out)}


def _layer_norm(name: str) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.ones(WIDTH), f"{name}.bias": torch.zeros(WIDTH)}


def load_text_encoder(rows: tuple[Tensor, Tensor] | None = None):
    """Return transformers' CLIPTextModel with the mini weights, frozen; see `text_encoder_state`."""
    family = FAMILIES["sd15"]
    return text_model(text_encoder_state(rows), family.text_encoders[0], family.label)


@torch.no_grad()
def embed(prompts: Sequence[str], model=None, on_progress=None) -> Tensor:
    """Return the last hidden states of prompts, as SD 1.5 uses them, (len(prompts), 77, 768)."""
    model = model or load_text_encoder()
    ids = token_ids(prompts, load_tokenizer())
    parts = []
    for part in ids.split(16):
        parts.append(model(part).last_hidden_state)
        if on_progress:
            on_progress(sum(map(len, parts)), len(ids))
    return torch.cat(parts)
