"""The curve of a training run: loss and accuracy over the steps, and never images of pairs."""

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw

WIDTH, HEIGHT, MARGIN = 512, 256, 32
PAPER, GRID, RAW, SMOOTH, INK = "#1b1b1f", "#3a3a42", "#4a5a78", "#7ab8ff", "#d0d0d8"
ACCURACY, HELD = "#8fce6a", "#f0b050"  # accuracies have their own scale, from 0 to 1


def draw_loss_curve(
    losses: Sequence[float], accuracies: Sequence[float] = (), held_out: Mapping[int, float] | None = None
) -> Image.Image:
    """Draw loss and accuracy over the steps of a run, as running means over a twentieth of the run.

    Args:
        losses: of every step, at least one finite number; also drawn without averaging.
        accuracies: share of pairs in each step whose safe image won, in [0, 1].
        held_out: step -> the same share on held-out pairs, measured after that step.

    Returns:
        An image of 512 x 256 pixels.
    """
    picture = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pen = ImageDraw.Draw(picture)
    low, high = min(0.0, *losses), max(*losses, 1e-12)
    bottom, right = HEIGHT - MARGIN, WIDTH - MARGIN // 2

    def draw(values: Mapping[int, float], low: float, high: float, colour: str, width: int) -> None:
        step = (right - MARGIN) / max(1, len(losses) - 1)
        scale = (bottom - MARGIN / 2) / (high - low)
        points = [(MARGIN + (i - 1) * step, bottom - (value - low) * scale) for i, value in values.items()]
        if points:
            pen.line([*points, points[-1]], fill=colour, width=width)  # a line needs two points

    pen.line([(MARGIN, MARGIN // 2), (MARGIN, bottom), (right, bottom)], fill=GRID)
    draw(_by_step(_running_mean(accuracies)), 0.0, 1.0, ACCURACY, 1)
    draw(held_out or {}, 0.0, 1.0, HELD, 2)
    draw(_by_step(losses), low, high, RAW, 1)
    draw(_by_step(_running_mean(losses)), low, high, SMOOTH, 2)
    pen.text((MARGIN + 4, 4), f"loss {losses[0]:.4g} -> {losses[-1]:.4g}", fill=INK)
    if accuracies:
        pen.text((right - 100, 4), f"accuracy {_running_mean(accuracies)[-1]:.0%}", fill=ACCURACY)
    if held_out:
        pen.text((right - 100, 18), f"held out {list(held_out.values())[-1]:.0%}", fill=HELD)
    pen.text((MARGIN, bottom + 8), f"{len(losses)} steps", fill=INK)
    return picture


def _by_step(values: Sequence[float]) -> dict[int, float]:
    return dict(enumerate(values, start=1))


def _running_mean(values: Sequence[float]) -> list[float]:
    window = max(1, len(values) // 20)
    parts = [values[max(0, end - window) : end] for end in range(1, len(values) + 1)]
    return [sum(part) / len(part) for part in parts]
