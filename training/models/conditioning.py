"""What a UNet is told beside the noisy latents, and the one place that calls a UNet with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LATENT_STEP = 8  # pixels per latent


@dataclass(frozen=True, eq=False)  # holds tensors, so equality stays identity
class Conditioning:
    """Encoded prompts, one row each.

    Args:
        text_embeds: what the UNet attends to, (rows, tokens, width).
        pooled: one vector per prompt, (rows, pooled width); None in families whose UNet takes none.
    """

    text_embeds: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.text_embeds)

    def __getitem__(self, rows: Tensor | slice | list[int]) -> Conditioning:
        """Return the chosen rows, by numbers or as a slice."""
        return self._each(lambda own: own[rows])

    def to(self, *args: Any, **kwargs: Any) -> Conditioning:
        """Move and convert as `Tensor.to` does."""
        return self._each(lambda own: own.to(*args, **kwargs))

    def replaced(self, rows: Tensor, other: Conditioning) -> Conditioning:
        """Return this with some rows taken from elsewhere.

        Args:
            rows: whether to replace a row, (rows,) bool.
            other: of one row, which stands in for all, or of as many as here.
        """
        both = zip(self.tensors, other.tensors, strict=True)
        return Conditioning(
            *(torch.where(rows.reshape(-1, *[1] * (own.ndim - 1)), new, own) for own, new in both)
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Conditioning]) -> Conditioning:
        """Return the rows of all parts, in their order."""
        return cls(*map(torch.cat, zip(*(part.tensors for part in parts), strict=True)))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Its tensors, `text_embeds` first."""
        return (self.text_embeds,) if self.pooled is None else (self.text_embeds, self.pooled)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        return Conditioning(*map(change, self.tensors))


def predict(unet: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
    """Run a UNet of any family.

    Args:
        unet: of diffusers.
        noisy: latents, (batch, c, h, w), of the type the UNet takes.
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

    Height and width of the original in pixels, top and left of the crop, height and width wanted
    (Podell et al. 2023, arXiv:2307.01952, section 2.2); AlignGuard's launcher gives the same.
    """
    batch, _, height, width = latents.shape
    size = [LATENT_STEP * height, LATENT_STEP * width]
    return torch.tensor([*size, 0.0, 0.0, *size], device=latents.device).expand(batch, 6)
