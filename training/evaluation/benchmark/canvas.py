"""A picture of text and lines with smooth edges: drawn twice as large, then halved."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from PIL import Image, ImageDraw, ImageFont

PAPER, CARD, GRID, INK, FAINT, ALARM = "#17171b", "#212127", "#3b3b45", "#e6e6ec", "#9a9aa6", "#ff6b57"
# one a model, the base first; told apart in the usual kinds of colour blindness (after Okabe and Ito)
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
CELL = 9  # pixels that `typed` takes for a letter
_FINE = 2


class Canvas:
    """Places are in pixels of the finished picture, from its upper left corner."""

    def __init__(self, width: int, height: int, paper: str = PAPER) -> None:
        self._picture = Image.new("RGB", (width * _FINE, height * _FINE), paper)
        self._pen = ImageDraw.Draw(self._picture)
        self.width, self.height = width, height

    def card(self, left: float, top: float, right: float, bottom: float) -> None:
        """Draw the ground of a part of the page."""
        self._pen.rounded_rectangle(_scaled(left, top, right, bottom), radius=10 * _FINE, fill=CARD)

    def box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        self._pen.rectangle(_scaled(left, top, max(left, right), max(top, bottom)), fill=colour)

    def frame(self, left: float, top: float, right: float, bottom: float, colour: str, width: int) -> None:
        self._pen.rectangle(_scaled(left, top, right, bottom), outline=colour, width=width * _FINE)

    def line(self, *places: float, colour: str, width: float = 1) -> None:
        self._pen.line(_scaled(*places), fill=colour, width=round(width * _FINE))

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        self._pen.ellipse(_scaled(x - radius, y - radius, x + radius, y + radius), fill=colour)

    def text(
        self, x: float, y: float, text: str, *, size: int = 13, colour: str = INK, anchor: str = "la"
    ) -> None:
        """Write a line; anchor as Pillow names it, such as `ma` for centred below the place."""
        self._pen.text((x * _FINE, y * _FINE), _plain(text), font=_font(size), fill=colour, anchor=anchor)

    def typed(self, x: float, y: float, text: str) -> None:
        """Write a line as a typewriter does, every letter in a cell of `CELL` pixels, spaces kept."""
        for number, letter in enumerate(text):
            place = ((x + (number + 0.5) * CELL) * _FINE, y * _FINE)
            self._pen.text(place, letter, font=_font(12), fill=INK, anchor="ma")

    def paste(self, picture: Image.Image, left: float, top: float, side: int) -> None:
        """Place a picture scaled into a square, its shape kept."""
        scale = side * _FINE / max(picture.size)
        size = tuple(max(1, round(length * scale)) for length in picture.size)
        spare = [(side * _FINE - length) // 2 for length in size]
        place = (round(left * _FINE) + spare[0], round(top * _FINE) + spare[1])
        self._picture.paste(picture.convert("RGB").resize(size, Image.Resampling.LANCZOS), place)

    def finish(self, height: float | None = None) -> Image.Image:
        """Return the finished picture, cut to a height where one is given."""
        size = (self.width, min(self.height, round(height or self.height)))
        part = self._picture.crop((0, 0, size[0] * _FINE, size[1] * _FINE))
        return part.resize(size, Image.Resampling.LANCZOS)


def text_width(text: str, size: int = 13) -> float:
    """Return how wide a line is, in pixels of the finished picture."""
    return _font(size).getlength(_plain(text)) / _FINE


def shortened(text: str, width: float, size: int = 13) -> str:
    """Return a line cut to a width, in pixels of the finished picture."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(f"{text}...", size) > width:
        text = text[:-1]
    return f"{text}..."


def short_names(names: Sequence[str], width: float, size: int = 13) -> list[str]:
    """Return names cut to a width in pixels, in the middle, so that names that differ still do.

    Where the middle is what tells them apart they are cut elsewhere, and numbered where nothing else helps.
    """
    for head in (0.5, 0.25, 0.75, 0.0):
        found = [_cut(name, width, size, head) for name in names]
        if len(set(map(_plain, found))) == len(set(names)):
            return found
    return [_cut(f"{number}: {name}", width, size, 0.5) for number, name in enumerate(names, start=1)]


def _cut(name: str, width: float, size: int, head: float) -> str:
    """Return a name of which as much as fits is kept, a share of it, `head`, from the beginning."""
    kept, found = len(name), name
    while kept and text_width(found, size) > width:
        kept -= 1
        first = round(kept * head)
        found = f"{name[:first]}...{name[len(name) - kept + first :]}"
    return found


def typed_lines(text: str, width: float) -> list[str]:
    r"""Return a text as lines that `typed` writes within a width; joined they are the text, nothing is cut.

    A line ends behind a space, or is full. Letters that the font lacks stand as Python escapes them, such as
    `\u4e2d`; a line break of the text as `\n`.
    """
    most = int(width // CELL)
    spelled = "".join(each if _is_drawn(each) else ascii(each)[1:-1] for each in text)
    return re.findall(rf".{{1,{most}}}(?:(?<= )|$)|.{{1,{most}}}", spelled)


def _is_drawn(letter: str) -> bool:
    return letter.isprintable() and ord(letter) < 256  # latin-1


@cache
def _font(size: int) -> ImageFont.ImageFont:
    return ImageFont.load_default(size * _FINE)


def _scaled(*places: float) -> list[float]:
    return [place * _FINE for place in places]


def _plain(text: str) -> str:
    """Return text in letters the built-in font has."""
    return " ".join(text.encode("latin-1", "replace").decode("latin-1").split())
