"""A chart of a safety stack: the retention of an expert in each layer under other LoRAs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

if TYPE_CHECKING:
    from ...training.evaluation.safety_stack import SafetyStack

PAPER, GRID, INK, KEPT, LOST, GAP = "#1b1b1f", "#3a3a42", "#d0d0d8", "#7fd88f", "#f07178", "#2a2a30"
MARGIN, LINE, WIDTH, HEIGHT = 48, 16, 720, 180
NAME_LETTERS = 60


def draw_stack(stack: SafetyStack) -> Image.Image:
    """Draw retention as one column per layer, in order of their paths, up or down from the line at 1.

    Green: the LoRAs do not work against the layer. Red: they do. Dark: the expert does not change the layer.
    """
    step = max(1, WIDTH // len(stack.layers))
    top, width = LINE * (len(stack.others) + 4), max(WIDTH, step * len(stack.layers)) + 2 * MARGIN
    picture = Image.new("RGB", (width, top + HEIGHT + LINE), PAPER)
    pen = ImageDraw.Draw(picture)
    measured = [layer.retention for layer in stack.layers if layer.retention is not None]
    low, high = min(0.0, *measured), max(2.0, *measured)

    def y(value: float) -> float:
        return top + HEIGHT * (high - value) / (high - low)

    for column, layer in enumerate(stack.layers):
        left = MARGIN + column * step
        if layer.retention is None:
            pen.rectangle([left, top, left + step - 1, top + HEIGHT], fill=GAP)
            continue
        ends = sorted((y(layer.retention), y(1.0)))
        pen.rectangle([left, ends[0], left + step - 1, ends[1]], fill=LOST if layer.retention < 1 else KEPT)
    for value in (low, 0.0, 1.0, high):
        pen.line([MARGIN, y(value), width - MARGIN, y(value)], fill=INK if value == 1 else GRID)
        pen.text((6, y(value) - 6), f"{value:.2f}", fill=INK)
    _draw_legend(pen, stack)
    return picture


def _draw_legend(pen: ImageDraw.ImageDraw, stack: SafetyStack) -> None:
    lines = [f"{stack.name} at strength {stack.strength:g}, retention {stack.retention:.3f}"]
    lines += [f"under {name}" for name in stack.others]
    lines.append("retention per layer: 1 untouched, 0 cancelled")
    for number, text in enumerate(lines):
        pen.text((MARGIN, 4 + LINE * number), _plain(text)[:NAME_LETTERS], fill=INK)


def _plain(text: str) -> str:
    """Return the text with characters that the built-in font lacks replaced."""
    return text.encode("latin-1", "replace").decode("latin-1")
