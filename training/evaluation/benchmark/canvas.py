"""A canvas for text and lines with smooth edges: it draws at twice the size and halves the picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

PAPER, CARD, GRID, INK, FAINT, ALARM = "#17171b", "#212127", "#3b3b45", "#e6e6ec", "#9a9aa6", "#ff6b57"
# one per model, the base first; distinct under common colour blindness (after Okabe and Ito)
COLOURS = (
    "#b8bcc8",
    "#56b4e9",
    "#e69f00",
    "#2fc79b",
    "#f0e442",
    "#cc79a7",
    "#d55e00",
    "#7f8cff",
    "#a6d96a",
)
CELL = 9  # pixels per letter in `typed`
_FINE = 2  # pixels drawn per pixel of the finished picture


class Box(NamedTuple):
    """A rectangle in pixels of the finished picture."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Return whether two boxes share more than an edge."""
        is_beside = self.right <= other.left or other.right <= self.left
        return not (is_beside or self.bottom <= other.top or other.bottom <= self.top)


class Canvas:
    """A picture to draw on. Coordinates are pixels of the finished picture, from its upper left corner."""

    def __init__(self, width: int, height: int, paper: str = PAPER) -> None:
        self._picture = Image.new("RGB", (width * _FINE, height * _FINE), paper)
        self._pen = ImageDraw.Draw(self._picture)
        self.width, self.height = width, height

    def card(self, left: float, top: float, right: float, bottom: float) -> None:
        """Draw the background of a section, with rounded corners."""
        self._pen.rounded_rectangle(_scaled(left, top, right, bottom), radius=10 * _FINE, fill=CARD)

    def box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        self._pen.rectangle(_scaled(left, top, max(left, right), max(top, bottom)), fill=colour)

    def frame(self, left: float, top: float, right: float, bottom: float, colour: str, width: int) -> None:
        self._pen.rectangle(_scaled(left, top, right, bottom), outline=colour, width=width * _FINE)

    def line(self, *points: float, colour: str, width: float = 1) -> None:
        self._pen.line(_scaled(*points), fill=colour, width=round(width * _FINE))

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        self._pen.ellipse(_scaled(x - radius, y - radius, x + radius, y + radius), fill=colour)

    def text(
        self, x: float, y: float, text: str, *, size: int = 13, colour: str = INK, anchor: str = "la"
    ) -> None:
        """Write a line of text; anchor as in Pillow, such as `ma`: centred below the point."""
        self._pen.text((x * _FINE, y * _FINE), _plain(text), font=_font(size), fill=colour, anchor=anchor)

    def typed(self, x: float, y: float, text: str) -> None:
        """Write a line in fixed pitch: every letter, spaces too, takes `CELL` pixels."""
        for number, letter in enumerate(text):
            place = ((x + (number + 0.5) * CELL) * _FINE, y * _FINE)
            self._pen.text(place, letter, font=_font(12), fill=INK, anchor="ma")

    def paste(self, picture: Image.Image, left: float, top: float, side: int) -> None:
        """Paste a picture scaled to fit a square, its aspect ratio preserved."""
        scale = side * _FINE / max(picture.size)
        size = tuple(max(1, round(length * scale)) for length in picture.size)
        spare = [(side * _FINE - length) // 2 for length in size]
        place = (round(left * _FINE) + spare[0], round(top * _FINE) + spare[1])
        self._picture.paste(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS), place)

    def finish(self, height: float | None = None) -> Image.Image:
        """Return the finished picture, cropped to a height if one is given."""
        size = (self.width, min(self.height, round(height or self.height)))
        part = self._picture.crop((0, 0, size[0] * _FINE, size[1] * _FINE))
        return part.resize(size, Image.Resampling.LANCZOS)


def text_width(text: str, size: int = 13) -> float:
    """Return the width of a line of text, in pixels of the finished picture."""
    return _font(size).getlength(_plain(text)) / _FINE


def shortened(text: str, width: float, size: int = 13) -> str:
    """Return a line of text truncated to a width, in pixels of the finished picture."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(f"{text}...", size) > width:
        text = text[:-1]
    return f"{text}..."


def short_names(names: Sequence[str], width: float, size: int = 13) -> list[str]:
    """Return names shortened to a width in pixels, so that different names stay different.

    Names are cut in the middle. If they differ only there they are cut elsewhere, and numbered if nothing
    else helps.
    """
    for head in (0.5, 0.25, 0.75, 0.0):
        shortened_names = [_cut(name, width, size, head) for name in names]
        if len(set(map(_plain, shortened_names))) == len(set(names)):
            return shortened_names
    return [_cut(f"{number}: {name}", width, size, 0.5) for number, name in enumerate(names, start=1)]


def _cut(name: str, width: float, size: int, head: float) -> str:
    """Return as much of a name as fits, with the share `head` of its letters taken from the beginning."""
    length, text = len(name), name
    while length and text_width(text, size) > width:
        length -= 1
        first = round(length * head)
        text = f"{name[:first]}...{name[len(name) - length + first :]}"
    return text


def typed_lines(text: str, width: float) -> list[str]:
    r"""Return a text as lines for `typed` that fit a width; joined they are the text, nothing is cut.

    A line ends after a space, or is full. Letters that the font lacks are written as Python escapes, such as
    `\u4e2d`, and a line break as `\n`.
    """
    most = int(width // CELL)
    spelled = "".join(letter if _is_drawn(letter) else ascii(letter)[1:-1] for letter in text)
    return re.findall(rf".{{1,{most}}}(?:(?<= )|$)|.{{1,{most}}}", spelled)


def _is_drawn(letter: str) -> bool:
    return letter.isprintable() and ord(letter) < 256  # latin-1


@cache
def _font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size * _FINE)


def _scaled(*coordinates: float) -> list[float]:
    return [coordinate * _FINE for coordinate in coordinates]


def _plain(text: str) -> str:
    """Return a text in letters that the built-in font has."""
    return " ".join(text.encode("latin-1", "replace").decode("latin-1").split())
