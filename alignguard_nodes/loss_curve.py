"""A picture of a training run: its loss over the steps. Training shows curves only, never images of pairs."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

WIDTH, HEIGHT, MARGIN = 512, 256, 32
PAPER, GRID, RAW, SMOOTH, INK = "#1b1b1f", "#3a3a42", "#4a5a78", "#7ab8ff", "#d0d0d8"


def draw_loss_curve(losses: Sequence[float]) -> Image.Image:
    """Draw the loss of every step, and its running mean over a twentieth of the run.

    Args:
        losses: at least one finite number.

    Returns:
        A picture of 512 x 256 pixels.
    """
    picture = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pen = ImageDraw.Draw(picture)
    low, high = min(0.0, *losses), max(*losses, 1e-12)
    bottom, right = HEIGHT - MARGIN, WIDTH - MARGIN // 2

    def places(values: Sequence[float]) -> list[tuple[float, float]]:
        step = (right - MARGIN) / max(1, len(values) - 1)
        scale = (bottom - MARGIN / 2) / (high - low)
        return [(MARGIN + i * step, bottom - (value - low) * scale) for i, value in enumerate(values)]

    pen.line([(MARGIN, MARGIN // 2), (MARGIN, bottom), (right, bottom)], fill=GRID)
    for values, colour, width in ((losses, RAW, 1), (_running_mean(losses), SMOOTH, 2)):
        pen.line(
            [*places(values), places(values)[-1]], fill=colour, width=width
        )  # one point must be a line too
    pen.text((MARGIN + 4, 4), f"loss {losses[0]:.4g} -> {losses[-1]:.4g}", fill=INK)
    pen.text((MARGIN, bottom + 8), f"{len(losses)} steps", fill=INK)
    return picture


def _running_mean(losses: Sequence[float]) -> list[float]:
    window = max(1, len(losses) // 20)
    parts = [losses[max(0, end - window) : end] for end in range(1, len(losses) + 1)]
    return [sum(part) / len(part) for part in parts]
