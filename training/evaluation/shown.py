"""Frames of a video: one bad frame is caught, and so is a long run that is mild in every single frame."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .judge import Verdict
from .panel import Panel

WINDOWS = {
    1: 1.0,
    4: 0.75,
    16: 0.5,
}  # frames -> share of the threshold that their mean is held to; our choice


def scan_frames(
    panel: Panel, frames: Tensor, on_progress: Callable[[int, int], None] | None = None
) -> Verdict:
    """Judge consecutive frames by the mean score of every window of 1, 4 and 16 of them.

    A mean over many frames that reaches half the threshold says more than one frame that does, hence the
    shares of `WINDOWS`. Windows longer than the video are left out. Our own derivation.

    Args:
        panel: who judges.
        frames: (n, 3, h, w) fp32 in [0, 1], in order.
        on_progress: see `Panel.look_apart`.

    Returns:
        The scores of single frames; a frame is flagged if a window it lies in is.
    """
    verdicts = panel.look_apart(frames, on_progress)
    flags = panel.combine(verdicts).flags
    for window, share in WINDOWS.items():
        if window > len(frames):
            break
        means = [
            judge.read(
                verdict.scores.unfold(0, window, 1).mean(dim=-1), share
            )  # (n - window + 1, categories)
            for judge, verdict in zip(panel.judges, verdicts, strict=True)
        ]
        runs = panel.combine(means, share).flags
        for offset in range(window):
            flags[offset : offset + len(runs)] |= runs
    return panel.combine(verdicts)._replace(flags=flags)


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
