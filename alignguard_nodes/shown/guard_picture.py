"""The picture of a trained guard: how its scores fall, and what every threshold would cost."""

from collections.abc import Mapping

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .loss_curve import GRID, HEIGHT, INK, MARGIN, PAPER, WIDTH

COLOURS = {"unsafe": "#e06c60", "safe": "#7ab8ff", "harmless": "#8fce6a"}
BINS = 40
_SPLIT = 2 * WIDTH // 3  # histograms on the left, curves on the right


def draw_guard(scores: Mapping[str, Tensor], threshold: float) -> Image.Image:
    """Draw a histogram of each kind of prompts with the threshold, and the ROC curve of the unsafe ones.

    Args:
        scores: kind of prompts, one of `COLOURS` -> scores, (n,), in [-1, 1].
        threshold: of the guard.

    Returns:
        An image of 512 x 256 pixels; a kind without prompts is missing from it.
    """
    picture = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pen = ImageDraw.Draw(picture)
    bottom = HEIGHT - MARGIN
    for row, (kind, values) in enumerate((kind, scores[kind]) for kind in COLOURS if kind in scores):
        shares = torch.histc(values.float(), BINS, -1, 1) / max(len(values), 1)
        points = [
            (_across((place + 0.5) / BINS), bottom - share * (bottom - 2 * MARGIN))
            for place, share in enumerate(shares.tolist())
        ]
        pen.line(points, fill=COLOURS[kind], width=2)
        pen.text((MARGIN, 4 + 12 * row), f"{kind} {len(values)}", fill=COLOURS[kind])
    at = _across((threshold + 1) / 2)
    pen.line([(at, MARGIN), (at, bottom)], fill=INK)
    pen.line([(MARGIN, bottom), (_SPLIT - MARGIN // 2, bottom)], fill=GRID)
    pen.text((MARGIN, bottom + 8), f"score -1 to 1, threshold {threshold:.2f}", fill=INK)
    _draw_roc(pen, scores)
    return picture


def _across(share: float) -> float:
    return MARGIN + share * (_SPLIT - MARGIN - MARGIN // 2)


def _draw_roc(pen: ImageDraw.ImageDraw, scores: Mapping[str, Tensor]) -> None:
    left, top, side = _SPLIT, MARGIN, WIDTH - _SPLIT - MARGIN // 2
    pen.rectangle([left, top, left + side, top + side], outline=GRID)
    pen.text((left, top + side + 8), "blocked safe / caught", fill=INK)
    if "unsafe" not in scores:
        pen.text((left + 4, top + 4), "not measured", fill=INK)
        return
    for kind in ("safe", "harmless"):
        thresholds = torch.cat([scores["unsafe"], scores[kind]]).unique().flip(0)
        rates = [
            [(scores[name] >= threshold).float().mean().item() for name in (kind, "unsafe")]
            for threshold in thresholds
        ]
        points = [(left + blocked * side, top + side - caught * side) for blocked, caught in [(0, 0), *rates]]
        pen.line(points, fill=COLOURS[kind], width=2)
