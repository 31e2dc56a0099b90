"""The conditioning of a network beside the noisy latents, and the single call of a network with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .network import Network

LATENT_STEP = 8  # pixels per latent, in height and width


@dataclass(frozen=True, eq=False)  # holds tensors, so equality stays identity
class Conditioning:
    """Encoded prompts, one row each.

    Args:
        text_embeds: embeddings the network attends to, (rows, tokens, width).
        pooled: one vector per prompt, (rows, pooled width); None in families whose network takes none.
        lengths: number of tokens of each row; the rest of a row is padding, which a network must not see.
            None: every row has all tokens.
    """

    text_embeds: Tensor
    pooled: Tensor | None = None
    lengths: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.text_embeds)

    def __getitem__(self, rows: Tensor | slice | list[int]) -> Conditioning:
        """Return the chosen rows, by indices or as a slice."""
        chosen = self.map_tensors(lambda tensor: tensor[rows])
        if self.lengths is None:
            return chosen
        if isinstance(rows, slice):
            numbers = range(len(self))[rows]
        else:
            numbers = rows.tolist() if isinstance(rows, Tensor) else rows
        return replace(chosen, lengths=tuple(self.lengths[number] for number in numbers))

    def to(self, *args: Any, **kwargs: Any) -> Conditioning:
        """Move and convert as `Tensor.to` does."""
        return self.map_tensors(lambda tensor: tensor.to(*args, **kwargs))

    def replaced(self, rows: Tensor, other: Conditioning) -> Conditioning:
        """Return this conditioning with some rows replaced by rows of another.

        Args:
            rows: whether to replace a row, (rows,) bool.
            other: one row that replaces each of them, or as many rows as this conditioning.
        """
        first, second = _padded([self, other])
        both = zip(first.tensors, second.tensors, strict=True)
        mixed = Conditioning(
            *(torch.where(rows.reshape(-1, *[1] * (old.ndim - 1)), new, old) for old, new in both)
        )
        if first.lengths is None:
            return mixed
        others = second.lengths * (len(first) // len(second))
        choices = zip(rows.tolist(), first.lengths, others, strict=True)
        return replace(mixed, lengths=tuple(new if chosen else old for chosen, old, new in choices))

    def blended(self, other: Conditioning, shares: Tensor) -> Conditioning:
        """Return (1 - share) * this + share * other; rows of unequal length stay as they are.

        Args:
            other: as many rows.
            shares: of the other rows, in [0, 1], (rows,).
        """
        first, second = _padded([self, other])
        if first.lengths is not None:
            equal = [one == two for one, two in zip(first.lengths, second.lengths, strict=True)]
            shares = shares * torch.tensor(equal, device=shares.device)
        both = zip(first.tensors, second.tensors, strict=True)
        mixed = Conditioning(
            *(torch.lerp(old, new, shares.to(old).view(-1, *[1] * (old.ndim - 1))) for old, new in both)
        )
        return replace(mixed, lengths=first.lengths)

    @classmethod
    def concatenate(cls, parts: Sequence[Conditioning]) -> Conditioning:
        """Return the rows of all parts, in their order; rows of unequal length are padded with zeros."""
        parts = _padded(parts)
        joined = cls(*map(torch.cat, zip(*(part.tensors for part in parts), strict=True)))
        if parts[0].lengths is None:
            return joined
        return replace(joined, lengths=tuple(length for part in parts for length in part.lengths))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors without `lengths`, `text_embeds` first."""
        return (self.text_embeds,) if self.pooled is None else (self.text_embeds, self.pooled)

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        """Return a conditioning whose `tensors` were changed one by one, with the same `lengths`."""
        return replace(Conditioning(*map(change, self.tensors)), lengths=self.lengths)

    def by_length(self) -> list[tuple[list[int], Conditioning]]:
        """Return groups of rows of one length, without padding: the numbers of the rows, and the rows."""
        if self.lengths is None:
            return [(list(range(len(self))), self)]
        groups = []
        for length in sorted(set(self.lengths)):
            rows = [row for row, tokens in enumerate(self.lengths) if tokens == length]
            part = replace(self[rows], lengths=None)
            groups.append((rows, replace(part, text_embeds=part.text_embeds[:, :length])))
        return groups


def _padded(parts: Sequence[Conditioning]) -> list[Conditioning]:
    """Return the parts with as many tokens as the longest, and with lengths unless all have that many."""
    longest = max(part.text_embeds.shape[1] for part in parts)
    if all(part.lengths is None and part.text_embeds.shape[1] == longest for part in parts):
        return list(parts)
    padded = []
    for part in parts:
        embeds, lengths = part.text_embeds, part.lengths
        if lengths is None:
            lengths = (embeds.shape[1],) * len(embeds)
        embeds = F.pad(embeds, (0, 0, 0, longest - embeds.shape[1]))
        padded.append(replace(part, text_embeds=embeds, lengths=lengths))
    return padded


def predict(unet: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
    """Run the network of any family.

    Args:
        unet: UNet of diffusers, or a `Network`.
        noisy: latents, (batch, c, h, w), of the UNet's type.
        timesteps: indices in [0, 1000), (batch,).
        conditioning: batch rows, of the same type.

    Returns:
        The prediction, (batch, c, h, w), of the UNet's type.
    """
    if isinstance(unet, Network):
        return unet.predict(noisy, timesteps, conditioning)
    added = None
    if conditioning.pooled is not None:
        added = {"text_embeds": conditioning.pooled, "time_ids": size_ids(noisy)}
    embeds = conditioning.text_embeds
    return unet(noisy, timesteps, encoder_hidden_states=embeds, added_cond_kwargs=added).sample


def size_ids(latents: Tensor) -> Tensor:
    """Return SDXL's size conditioning for uncropped pictures at full size, (batch, 6), fp32.

    Height and width of the original in pixels, top and left of the crop, height and width of the target
    (Podell et al. 2023, arXiv:2307.01952, section 2.2); AlignGuard's launcher passes the same numbers.
    """
    batch, _, height, width = latents.shape
    size = [LATENT_STEP * height, LATENT_STEP * width]
    return torch.tensor([*size, 0.0, 0.0, *size], device=latents.device).expand(batch, 6)
