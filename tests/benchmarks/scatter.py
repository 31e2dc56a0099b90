"""A scatter plot of labelled points, drawn with Pillow alone: what is won against what is lost."""

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

PAPER, GRID, INK, POINT = "#ffffff", "#d9d9de", "#26262b", "#2f6fdb"
SIZE, LEFT, RIGHT, TOP, BOTTOM = (900, 600), 70, 170, 44, 60  # the labels of the rightmost points need room
TICKS = 5
RADIUS, LETTER, LINE = 4, 13, 15


def scatter(
    points: Mapping[str, tuple[float, float]], *, title: str, x_name: str, y_name: str
) -> Image.Image:
    """Draw points with their names beside them, on axes that hold all points.

    Args:
        points: name -> (x, y), at least one.
        title: above the plot.
        x_name: of the horizontal axis.
        y_name: of the vertical axis.
    """
    picture = Image.new("RGB", SIZE, PAPER)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(LETTER)
    spans = [_span([point[axis] for point in points.values()]) for axis in (0, 1)]
    _axes(pen, font, spans)
    pen.text((LEFT, 12), title, INK, font)
    pen.text((LEFT, SIZE[1] - LINE - 6), x_name, INK, font)
    pen.text((LEFT, TOP - LINE), y_name, INK, font)
    places = {
        name: tuple(_place(point[axis], spans[axis], axis) for axis in (0, 1))
        for name, point in points.items()
    }
    dots = {name: (x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for name, (x, y) in places.items()}
    taken = list(dots.values())
    for name, (x, y) in places.items():
        pen.ellipse(dots[name], POINT)
        spot = _free_spot(pen.textbbox((x + 8, y - LINE / 2), name, font), taken)
        pen.line([(x, y), (spot[0] - 2, (spot[1] + spot[3]) / 2)], INK)
        pen.text(spot[:2], name, INK, font, anchor="lt")
        taken.append(spot)
    return picture


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * 0.06 or 0.05
    return low - margin, high + margin


def _place(value: float, span: tuple[float, float], axis: int) -> float:
    share = (value - span[0]) / (span[1] - span[0])
    if axis == 0:
        return LEFT + share * (SIZE[0] - LEFT - RIGHT)
    return SIZE[1] - BOTTOM - share * (SIZE[1] - TOP - BOTTOM)


def _axes(pen: ImageDraw.ImageDraw, font, spans: Sequence[tuple[float, float]]) -> None:
    edges = (LEFT, TOP, SIZE[0] - RIGHT, SIZE[1] - BOTTOM)
    for tick in range(TICKS):
        x_value, y_value = (low + (high - low) * tick / (TICKS - 1) for low, high in spans)
        x, y = _place(x_value, spans[0], 0), _place(y_value, spans[1], 1)
        pen.line([(x, edges[1]), (x, edges[3])], GRID)
        pen.line([(edges[0], y), (edges[2], y)], GRID)
        pen.text((x, edges[3] + 6), f"{x_value:.2f}", INK, font, anchor="mt")
        pen.text((edges[0] - 6, y), f"{y_value:.2f}", INK, font, anchor="rm")


def _free_spot(
    box: tuple[float, float, float, float], taken: Sequence[tuple[float, float, float, float]]
) -> tuple[float, float, float, float]:
    """Move a label's box up or down to the nearest place in the picture where no other label is."""
    for shift in sorted(range(-SIZE[1], SIZE[1], LINE // 3), key=abs):
        left, top, right, bottom = box[0], box[1] + shift, box[2], box[3] + shift
        fits = TOP - LINE <= top and bottom <= SIZE[1] - BOTTOM + LINE
        if fits and not any(_overlap((left, top, right, bottom), other) for other in taken):
            return left, top, right, bottom
    return box


def _overlap(one: tuple[float, float, float, float], two: tuple[float, float, float, float]) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]
