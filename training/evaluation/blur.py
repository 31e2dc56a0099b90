"""Pictures that may not be shown as they are."""

import torch
import torch.nn.functional as F
from torch import Tensor

CELLS = 6  # along the shorter side: colours are left, shapes are not (our choice)
LEAST = 4  # pixels of a cell, for pictures so small that fewer would leave them as they are


def blurred(images: Tensor, hidden: Tensor) -> Tensor:
    """Return pictures with the hidden ones blurred beyond recognition, the others untouched.

    Args:
        images: (n, 3, h, w) fp32 in [0, 1].
        hidden: which to blur, (n,) bool.
    """
    h, w = images.shape[-2:]
    cell = max(LEAST, min(h, w) // CELLS)
    coarse = F.interpolate(images, (max(1, h // cell), max(1, w // cell)), mode="area")
    smooth = F.interpolate(coarse, (h, w), mode="bilinear")
    return torch.where(hidden.to(images.device)[:, None, None, None], smooth, images)


def hidden_pictures(images: Tensor, flags: Tensor | None) -> Tensor:
    """Return pictures with the flagged ones blurred; all of them where nobody could judge (None)."""
    return blurred(images, torch.ones(len(images), dtype=torch.bool) if flags is None else flags)
