"""A picture of a training run: loss and accuracy over the steps. Curves only, never images of pairs."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

WIDTH, HEIGHT, MARGIN = 512, 256, 32
PAPER, GRID, RAW, SMOOTH, INK = "#1b1b1f", "#3a3a42", "#4a5a78", "#7ab8ff", "#d0d0d8"
SURE = "#8fce6a"  # the accuracy, on a scale of its own from 0 to 1


def draw_loss_curve(losses: Sequence[float], accuracies: Sequence[float] = ()) -> Image.Image:
    """Draw the loss of every step, and its running mean over a twentieth of the run; likewise the accuracy.

    Args:
        losses: at least one finite number.
        accuracies: share of pairs, in [0, 1], whose safe image won in a step; drawn as its mean alone.

    Returns:
        A picture of 512 x 256 pixels.
    """
    picture = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pen = ImageDraw.Draw(picture)
    low, high = min(0.0, *losses), max(*losses, 1e-12)
    bottom, right = HEIGHT - MARGIN, WIDTH - MARGIN // 2

    def places(values: Sequence[float], low: float, high: float) -> list[tuple[float, float]]:
        step = (right - MARGIN) / max(1, len(values) - 1)
        scale = (bottom - MARGIN / 2) / (high - low)
        return [(MARGIN + i * step, bottom - (value - low) * scale) for i, value in enumerate(values)]

    def draw(values: Sequence[float], low: float, high: float, colour: str, width: int) -> None:
        if values:
            line = places(values, low, high)
            pen.line([*line, line[-1]], fill=colour, width=width)  # one point must be a line too

    pen.line([(MARGIN, MARGIN // 2), (MARGIN, bottom), (right, bottom)], fill=GRID)
    draw(_running_mean(accuracies), 0.0, 1.0, SURE, 1)
    draw(losses, low, high, RAW, 1)
    draw(_running_mean(losses), low, high, SMOOTH, 2)
    pen.text((MARGIN + 4, 4), f"loss {losses[0]:.4g} -> {losses[-1]:.4g}", fill=INK)
    if accuracies:
        shown = f"accuracy {_running_mean(accuracies)[-1]:.0%}"
        pen.text((right - 100, 4), shown, fill=SURE)
    pen.text((MARGIN, bottom + 8), f"{len(losses)} steps", fill=INK)
    return picture


def _running_mean(losses: Sequence[float]) -> list[float]:
    window = max(1, len(losses) // 20)
    parts = [losses[max(0, end - window) : end] for end in range(1, len(losses) + 1)]
    return [sum(part) / len(part) for part in parts]
