"""The picture of a trained safety cost model: how the costs of held-out pictures fall around zero."""

from collections.abc import Mapping

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .guard_picture import COLOURS as GUARD_COLOURS
from .loss_curve import GRID, HEIGHT, INK, MARGIN, PAPER, WIDTH

COLOURS = {
    "unsafe": GUARD_COLOURS["unsafe"],
    "safe": GUARD_COLOURS["safe"],
    "neutral": GUARD_COLOURS["harmless"],
}
BINS = 48
_SHARE_IN_SIGHT = 0.99  # of the pictures; a few far ones would flatten all others


def draw_costs(costs: Mapping[str, Tensor]) -> Image.Image:
    """Draw a histogram of the costs of each kind of pictures, with the border at 0.

    Args:
        costs: kind of pictures, one of `COLOURS` -> costs, (n,).

    Returns:
        An image of 512 x 256 pixels; a kind without pictures is missing from it.
    """
    picture = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pen = ImageDraw.Draw(picture)
    bottom, reach = HEIGHT - MARGIN, _reach(costs)
    shown = {kind: costs[kind] for kind in COLOURS if kind in costs and len(costs[kind])}
    shares = {
        kind: torch.histc(values.float().clamp(-reach, reach), BINS, -reach, reach) / len(values)
        for kind, values in shown.items()
    }
    highest = max((float(share.max()) for share in shares.values()), default=1.0)
    for row, (kind, share) in enumerate(shares.items()):
        points = [
            (_across((place + 0.5) / BINS), bottom - height / highest * (bottom - 2 * MARGIN))
            for place, height in enumerate(share.tolist())
        ]
        pen.line(points, fill=COLOURS[kind], width=2)
        pen.text((MARGIN, 4 + 12 * row), f"{kind} {len(shown[kind])}", fill=COLOURS[kind])
    pen.line([(_across(0.5), MARGIN), (_across(0.5), bottom)], fill=INK)
    pen.line([(MARGIN, bottom), (WIDTH - MARGIN, bottom)], fill=GRID)
    pen.text((MARGIN, bottom + 8), f"cost {-reach:.1f} to {reach:.1f}; right of the line is unsafe", fill=INK)
    return picture


def _reach(costs: Mapping[str, Tensor]) -> float:
    """Return the distance from 0 within which nearly all costs lie, at least 1."""
    distances = torch.cat([values.float().abs() for values in costs.values()] or [torch.zeros(1)])
    ranked = distances.sort().values
    return max(1.0, float(ranked[min(len(ranked) - 1, int(_SHARE_IN_SIGHT * len(ranked)))]))


def _across(share: float) -> float:
    return MARGIN + share * (WIDTH - 2 * MARGIN)
