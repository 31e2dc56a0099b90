"""The conditioning of a UNet beside the noisy latents, and the single call of a UNet with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LATENT_STEP = 8  # pixels per latent, in height and width


@dataclass(frozen=True, eq=False)  # holds tensors, so equality stays identity
class Conditioning:
    """Encoded prompts, one row each.

    Args:
        text_embeds: embeddings the UNet attends to, (rows, tokens, width).
        pooled: one vector per prompt, (rows, pooled width); None in families whose UNet takes none.
    """

    text_embeds: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.text_embeds)

    def __getitem__(self, rows: Tensor | slice | list[int]) -> Conditioning:
        """Return the chosen rows, by indices or as a slice."""
        return self._map(lambda tensor: tensor[rows])

    def to(self, *args: Any, **kwargs: Any) -> Conditioning:
        """Move and convert as `Tensor.to` does."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def replaced(self, rows: Tensor, other: Conditioning) -> Conditioning:
        """Return this conditioning with some rows replaced by rows of another.

        Args:
            rows: whether to replace a row, (rows,) bool.
            other: one row that replaces each of them, or as many rows as this conditioning.
        """
        both = zip(self.tensors, other.tensors, strict=True)
        return Conditioning(
            *(torch.where(rows.reshape(-1, *[1] * (old.ndim - 1)), new, old) for old, new in both)
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Conditioning]) -> Conditioning:
        """Return the rows of all parts, in their order."""
        return cls(*map(torch.cat, zip(*(part.tensors for part in parts), strict=True)))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors, `text_embeds` first."""
        return (self.text_embeds,) if self.pooled is None else (self.text_embeds, self.pooled)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        return Conditioning(*map(change, self.tensors))


def predict(unet: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
    """Run a UNet of any family.

    Args:
        unet: UNet of diffusers.
        noisy: latents, (batch, c, h, w), of the UNet's type.
        timesteps: indices in [0, 1000), (batch,).
        conditioning: batch rows, of the same type.

    Returns:
        The prediction, (batch, c, h, w), of the UNet's type.
    """
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
