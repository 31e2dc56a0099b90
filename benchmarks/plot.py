"""Plots of measured shares: points with names, or lines over a count."""

import math
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import dev

FOLDER = dev.ROOT / "demo_output"
WIDTH, HEIGHT = 900, 560
LEFT, RIGHT, TOP, BOTTOM = 80, 40, 70, 100
PAPER, INK, FAINT, GRID = "#faf9f6", "#1e1e24", "#6e6e76", "#dcdbd6"
COLOURS = ("#1f6fb2", "#d1495b", "#2e8b57", "#b8690b", "#7b4fa3", "#138a8a", "#6e5529", "#c2408f", "#44548c")
SHARES, RANGE = (0, 0.25, 0.5, 0.75, 1), (-0.04, 1.08)  # of an axis of shares: grid lines and limits
NUM_COLOURS = 64  # in the file, to keep it small
SMALL, LARGE, DOT = 15, 20, 5
NEAR = 1  # rows; a line joins a name that is further away to its point
ROWS = sorted(range(-12, 13), key=abs)  # rows relative to its point where a name may stand, nearest first
Point = tuple[float, float]
Box = tuple[float, float, float, float]  # left, top, right, bottom


class Plot:
    """A plot with shares on its vertical axis.

    Args:
        title: text above the plot.
        x_label: text below the axes.
        y_label: text above the axes.
        counts: ticks of a logarithmic horizontal axis; None for an axis of shares.
    """

    def __init__(
        self, title: str, x_label: str, y_label: str, *, counts: Sequence[int] | None = None
    ) -> None:
        self._image = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
        self._pen = ImageDraw.Draw(self._image)
        self._counts = counts
        self.taken: list[Box] = []  # boxes of points and names
        self._text(LEFT, 10, title, LARGE)
        self._text(LEFT, 40, y_label, SMALL, FAINT)
        self._text(LEFT, HEIGHT - BOTTOM + 30, x_label, SMALL, FAINT)
        for share in SHARES:
            _, y = self.place_of((counts[0] if counts else 0, share))
            self._pen.line([LEFT, y, WIDTH - RIGHT, y], fill=GRID)
            self._text(LEFT - 42, y - 9, f"{share:g}", SMALL, FAINT)
        for value in counts or SHARES:
            x, _ = self.place_of((value, 0))
            self._pen.line([x, TOP, x, HEIGHT - BOTTOM], fill=GRID)
            label = f"{value:g}"
            half = self._pen.textlength(label, _font(SMALL)) / 2
            self._text(x - half, HEIGHT - BOTTOM + 8, label, SMALL, FAINT)

    def point(self, at: Point, number: int, *, hollow: bool = False) -> None:
        """Draw a point in the colour of the number."""
        box = _dot(self.place_of(at))
        self._pen.ellipse(box, fill=None if hollow else _colour(number), outline=_colour(number), width=2)
        self.taken.append(box)

    def name(self, name: str, at: Point, number: int) -> None:
        """Write the name of a point in free space beside it; call it after all points and lines."""
        x, y = self.place_of(at)
        width = self._pen.textlength(name, _font(SMALL))
        places = [(x + side, y + SMALL * (row - 0.5)) for row in ROWS for side in (2 * DOT, -2 * DOT - width)]
        boxes = [(left, top, left + width, top + SMALL) for left, top in places]
        box = next((box for box in boxes if self._is_free(box)), boxes[0])
        self.taken.append(box)
        middle = (box[1] + box[3]) / 2
        if abs(middle - y) > NEAR * SMALL:
            end = box[0] - 2 if box[0] > x else box[2] + 2
            self._pen.line([x, y, end, middle], fill=_colour(number))
        self._text(box[0], box[1] - 2, name, SMALL, _colour(number))

    def lines(self, lines: Mapping[str, Sequence[Point]]) -> None:
        """Draw a coloured line through the points of each name, and write the name at its end."""
        for number, points in enumerate(lines.values()):
            places = [self.place_of(point) for point in points]
            self._pen.line(places, fill=_colour(number), width=3)
            self.taken += [_dot(at) for ends in pairwise(places) for at in _along(*ends)]
            for point in points:
                self.point(point, number)
        for number, (name, points) in enumerate(lines.items()):
            self.name(name, points[-1], number)

    def save(self, path: Path, footer: str) -> None:
        """Write the picture with a footer; an existing file is replaced atomically."""
        self._text(LEFT, HEIGHT - 34, footer, SMALL, FAINT)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{os.getpid()}.tmp")
        self._image.quantize(NUM_COLOURS).save(temporary, "PNG", optimize=True)
        os.replace(temporary, path)

    def place_of(self, point: Point) -> Point:
        x, y = (_place(value, *RANGE) for value in point)
        if self._counts:
            x = _place(*map(math.log, (point[0], 0.8 * self._counts[0], 1.3 * self._counts[-1])))
        return LEFT + x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM)

    def _is_free(self, box: Box) -> bool:
        left, top, right, bottom = box
        fits = (
            LEFT < left
            and right < WIDTH - SMALL
            and TOP - SMALL < top
            and bottom < HEIGHT - BOTTOM + SMALL / 2
        )
        return fits and not any(
            left < r and x < right and top < b and y < bottom for x, y, r, b in self.taken
        )

    def _text(self, x: float, y: float, text: str, size: int, colour: str = INK) -> None:
        self._pen.text((x, y), text, fill=colour, font=_font(size))


def _place(value: float, least: float, most: float) -> float:
    return (value - least) / (most - least)


def _dot(at: Point) -> Box:
    x, y = at
    return (x - DOT, y - DOT, x + DOT, y + DOT)


def _along(start: Point, end: Point) -> list[Point]:
    """Return points between two places, at most the radius of a dot apart."""
    steps = math.ceil(math.dist(start, end) / DOT)
    return [
        tuple(a + (b - a) * step / steps for a, b in zip(start, end, strict=True)) for step in range(1, steps)
    ]


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size)
