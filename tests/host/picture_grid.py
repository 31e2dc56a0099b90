"""A labelled grid of pictures: rows with names, and columns grouped under headings."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

TILE, GAP, GROUP_GAP = 112, 4, 28
MARGIN, LABEL_WIDTH, HEADING_HEIGHT = 20, 250, 60
PAPER, INK, FAINT = (250, 249, 246), (30, 30, 36), (110, 110, 118)


def save_grid(
    path: Path, headings: Sequence[str], rows: Sequence[tuple[str, str, Sequence[Tensor]]], footer: str
) -> None:
    """Draw a grid and write it to a file.

    Args:
        path: picture file, replaced if it exists.
        headings: one heading per group of columns.
        rows: name, a smaller text below it, and one tensor (pictures, 3, h, w) in [-1, 1] per heading.
        footer: text below the grid.
    """
    per_group = len(rows[0][2][0])
    group_width = per_group * (TILE + GAP)
    width = 2 * MARGIN + LABEL_WIDTH + len(headings) * (group_width + GROUP_GAP)
    height = 2 * MARGIN + HEADING_HEIGHT + len(rows) * (TILE + GAP) + 40
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, heading in enumerate(headings):
        pen.text((_left(number, group_width), MARGIN), heading, fill=INK, font=ImageFont.load_default(26))
    for number, (name, detail, groups) in enumerate(rows):
        top = MARGIN + HEADING_HEIGHT + number * (TILE + GAP)
        pen.text((MARGIN, top + TILE // 2 - 26), name, fill=INK, font=ImageFont.load_default(22))
        pen.text((MARGIN, top + TILE // 2 + 6), detail, fill=FAINT, font=ImageFont.load_default(15))
        for group, pictures in enumerate(groups):
            for column, picture in enumerate(pictures):
                sheet.paste(_tile(picture), (_left(group, group_width) + column * (TILE + GAP), top))
    pen.text((MARGIN, height - MARGIN - 16), footer, fill=FAINT, font=ImageFont.load_default(15))
    sheet.save(path)


def _left(group: int, group_width: int) -> int:
    return MARGIN + LABEL_WIDTH + group * (group_width + GROUP_GAP)


def _tile(picture: Tensor) -> Image.Image:
    pixels = ((picture + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).numpy().astype(np.uint8)
    return Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.LANCZOS)
