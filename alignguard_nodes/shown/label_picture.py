"""The picture of labelled pairs: how many of each category are kept, relabelled or in quarantine."""

from collections.abc import Mapping

from PIL import Image, ImageDraw

from .loss_curve import HEIGHT, INK, MARGIN, PAPER, WIDTH

COLOURS = {"kept": "#8fce6a", "relabelled": "#7ab8ff", "quarantine": "#e06c60"}
_NAMES = 110  # pixels for the names of categories
_ROW = 22  # pixels, at most


def draw_labels(per_category: Mapping[str, Mapping[str, int]]) -> Image.Image:
    """Draw a bar for each category, divided by outcome.

    Args:
        per_category: category -> outcome -> number of pairs; every outcome but `kept` and `relabelled` is a
            reason for quarantine.

    Returns:
        An image of 512 x 256 pixels; without categories it says that nothing was measured.
    """
    picture = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    pen = ImageDraw.Draw(picture)
    if not per_category:
        pen.text((MARGIN, HEIGHT // 2), "not measured", fill=INK)
        return picture
    for place, (name, colour) in enumerate(COLOURS.items()):
        pen.text((_NAMES + 120 * place, 4), name, fill=colour)
    row = min(_ROW, (HEIGHT - MARGIN) / len(per_category))
    most = max(sum(counts.values()) for counts in per_category.values())
    for number, (name, counts) in enumerate(per_category.items()):
        top, left = MARGIN + number * row, float(_NAMES)
        pen.text((8, top), f"{name[:14]} {sum(counts.values())}", fill=INK)
        for outcome, count in _by_colour(counts).items():
            right = left + count / most * (WIDTH - _NAMES - 8)
            if count:
                pen.rectangle([left, top, right, top + row * 0.7], fill=COLOURS[outcome])
            left = right
    return picture


def _by_colour(counts: Mapping[str, int]) -> dict[str, int]:
    used = {name: counts.get(name, 0) for name in ("kept", "relabelled")}
    return {**used, "quarantine": sum(counts.values()) - sum(used.values())}
