"""The decoder of an interpreter: predicts a prompt's tokens from the one row that stands for the prompt.

The decoder of Yang et al. 2024 (arXiv:2403.01446) attends to that row as a single key. Attention to one key
always weighs 1, so every layer adds a learned linear map of the row; that is what is built here. Theirs has
24 pretrained layers and says any word. Ours is trained from nothing on the captions of the person, and says
the tokens in them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.tokenizer import NUM_TOKENS

FREE_TOKENS = NUM_TOKENS - 2  # of a block, between start and end mark


class DecoderShape(NamedTuple):
    """The sizes of a decoder: of the encoder's row, its own width, layers, heads and vocabulary."""

    row_width: int
    width: int
    layers: int
    heads: int
    vocabulary: int


class _Layer(nn.Module):
    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.before, self.between = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        self.attend, self.join = nn.Linear(shape.width, 3 * shape.width), nn.Linear(shape.width, shape.width)
        self.condition = nn.Linear(shape.row_width, shape.width)
        self.widen, self.narrow = (
            nn.Linear(shape.width, 4 * shape.width),
            nn.Linear(4 * shape.width, shape.width),
        )

    def forward(self, hidden: Tensor, row: Tensor) -> Tensor:
        parts = self.attend(self.before(hidden)).unflatten(-1, (3, self.heads, -1))  # (n, t, 3, heads, w)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)  # (n, heads, t, w)
        hidden = hidden + self.join(mixed.transpose(1, 2).flatten(2)) + self.condition(row)[:, None]
        return hidden + self.narrow(F.gelu(self.widen(self.between(hidden))))


class Decoder(nn.Module):
    """Predicts each token of a prompt from the ones before it and from the row that stands for the prompt.

    Args:
        shape: its sizes; the heads divide the width.
        generator: draws the first weights; None leaves them as torch draws them.
    """

    def __init__(self, shape: DecoderShape, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(shape.vocabulary + 1, shape.width)  # the last stands before the first
        self.places = nn.Parameter(torch.zeros(FREE_TOKENS, shape.width))
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.layers))
        self.last = nn.LayerNorm(shape.width)
        for name, parameter in self.named_parameters() if generator else ():
            if parameter.ndim == 2:
                is_linear = name.startswith("layers.")
                spread = parameter.shape[1] ** -0.5 if is_linear else 0.02
                parameter.data.normal_(0, spread, generator=generator)
            elif name.endswith("bias"):
                parameter.data.zero_()

    def forward(self, rows: Tensor, before: Tensor) -> Tensor:
        """Return logits of the token that follows each place, (n, t, vocabulary).

        Args:
            rows: of the encoder, (n, row width), scaled to length 1 here.
            before: numbers of the tokens before each place, (n, t); the first is `shape.vocabulary`.
        """
        row = F.normalize(rows, dim=-1) * rows.shape[-1] ** 0.5
        hidden = self.tokens(before) + self.places[: before.shape[1]]
        for layer in self.layers:
            hidden = layer(hidden, row)
        return self.last(hidden) @ self.tokens.weight[:-1].T

    @torch.no_grad()
    def say(self, row: Tensor, length: int) -> list[int]:
        """Return the most likely tokens one after the other, as many as the prompt has."""
        numbers = [self.shape.vocabulary]
        for _ in range(min(length, FREE_TOKENS)):
            logits = self(row[None], torch.tensor([numbers], device=row.device))
            numbers.append(int(logits[0, -1].argmax()))
        return numbers[1:]
