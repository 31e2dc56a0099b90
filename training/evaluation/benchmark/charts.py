"""The charts of a benchmark: bars per group with their intervals, and what safety costs elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .canvas import COLOURS, FAINT, GRID, INK, Canvas, short_names, shortened, text_width
from .plan import BASE
from .summary import NEUTRAL_GROUP, SEEN_UNSAFE, Result
from .tables import count_text

NOT_MEASURED = "not measured"
LEGEND_LINE = 20
SHORT = {NEUTRAL_GROUP: "over-blocked", SEEN_UNSAFE: "all seen"}  # groups below their bars
PLOT = 44  # left of a plot, for the numbers of its axis
NAME_SIZE, NAME_HEIGHT = 12, 15  # of the names beside points, pixels
_STEPS = 30  # places that are tried above a point, and below it


def colour_of(number: int) -> str:
    """Return the colour of a model, by its place; after the ninth they come again."""
    return COLOURS[number % len(COLOURS)]


def draw_legend(canvas: Canvas, results: Sequence[Result], left: float, top: float, right: float) -> float:
    """Name every model beside its colour; return where the next thing may begin."""
    x = left
    for number, name in enumerate(short_names([result.name for result in results], 240)):
        if x > left and x + text_width(name) + 22 > right:
            x, top = left, top + LEGEND_LINE
        canvas.dot(x + 5, top + 8, 5, colour_of(number))
        canvas.text(x + 16, top, name)
        x += text_width(name) + 38
    return top + LEGEND_LINE + 6


def draw_bars(
    canvas: Canvas, results: Sequence[Result], left: float, top: float, right: float, bottom: float
) -> None:
    """Draw, group by group, the share of pictures judged unsafe of each model, 0 to 100 %."""
    groups = list(results[0].rates)
    floor, left = bottom - 40, left + PLOT
    _percent_axis(canvas, left, top, right, floor)
    step = (right - left) / max(1, len(groups))
    width = min(36.0, step * 0.8 / len(results))
    for place, group in enumerate(groups):
        middle = left + step * (place + 0.5)
        for number, result in enumerate(results):
            x = middle + width * (number - len(results) / 2)
            _bar(canvas, result, group, x, width, top, floor, colour_of(number))
        _group_label(canvas, results, group, middle, floor, step)


def draw_trade_off(
    canvas: Canvas, results: Sequence[Result], left: float, top: float, right: float, bottom: float
) -> None:
    """Draw each model as a point: how far neutral pictures moved, to the right, and the IP, upwards."""
    points = [(number, *point) for number, result in enumerate(results) if (point := _point(result))]
    if len(points) < 2:
        why = "needs an expert, neutral prompts, and prompts of a category that the judge sees"
        canvas.text(left + PLOT, (top + bottom) / 2, f"{NOT_MEASURED}: {why}", colour=FAINT)
        return
    floor, left = bottom - 40, left + PLOT
    _percent_axis(canvas, left, top, right, floor)
    reach = _round_up(max(high for _, (_, _, high), _ in points) or 1e-6)

    def place(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * x / reach * 0.94, floor - (floor - top) * y

    for tick in range(5):
        x, _ = place(reach * tick / 4, 0)
        canvas.text(x, floor + 6, f"{100 * reach * tick / 4:.3g} %", size=11, colour=FAINT, anchor="ma")
    what = "change of neutral pictures against the base, share of the full range of colour"
    canvas.text((left + right) / 2, floor + 22, what, size=12, colour=FAINT, anchor="ma")
    judged = f"IP of {SEEN_UNSAFE}, n = {count_text(results[0].rates[SEEN_UNSAFE])}"
    canvas.text(right, top - 20, judged, size=12, colour=FAINT, anchor="ra")
    for number, (x, x_low, x_high), (y, y_low, y_high) in points:
        colour = colour_of(number)
        canvas.line(*place(x_low, y), *place(x_high, y), colour=colour, width=1.5)
        canvas.line(*place(x, y_low), *place(x, y_high), colour=colour, width=1.5)
        canvas.dot(*place(x, y), 6, colour)
    names = short_names([results[number].name for number, *_ in points], 200, NAME_SIZE)
    marks = [place(x[0], y[0]) for _, x, y in points]
    for (number, *_), name, spot in zip(
        points, names, name_places(names, marks, (left, top, right, floor)), strict=True
    ):
        canvas.text(*spot, name, size=NAME_SIZE, colour=colour_of(number))


def name_places(
    names: Sequence[str], points: Sequence[tuple[float, float]], plot: tuple[float, float, float, float]
) -> list[tuple[float, float]]:
    """Return where each name begins, its upper left corner: inside the plot, near its point.

    It covers no point and no other name where there is room.

    Args:
        names: as they are written.
        points: of the models, pixels.
        plot: left, top, right and bottom of the plot.
    """
    left, top, right, bottom = plot
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    found = []
    for name, (x, y) in zip(names, points, strict=True):
        width = text_width(name, NAME_SIZE)
        steps = (sign * step for step in range(_STEPS) for sign in (-1, 1))
        places = [
            (
                min(max(at, left), right - width),
                min(max(y - NAME_HEIGHT / 2 + 12 * step, top), bottom - NAME_HEIGHT),
            )
            for step in steps
            for at in (x + 9, x - 9 - width)
        ]
        free = (place for place in places if not any(_overlap((*place, width), box) for box in taken))
        found.append(next(free, places[0]))
        taken.append((*found[-1], found[-1][0] + width, found[-1][1] + NAME_HEIGHT))
    return found


def _overlap(name: tuple[float, float, float], box: tuple[float, float, float, float]) -> bool:
    left, top, width = name
    return left < box[2] and box[0] < left + width and top < box[3] and box[1] < top + NAME_HEIGHT


def _point(result: Result) -> tuple[tuple[float, float, float], tuple[float, float, float]] | None:
    """Return (change, low, high) and (IP, low, high), as fractions; None: not measured."""
    rate, kept = result.rates.get(SEEN_UNSAFE), result.kept.get("distance")
    if rate is None or rate.share is None or NEUTRAL_GROUP not in result.rates:
        return None
    if kept is None and result.key != BASE:
        return None
    moved = kept.mean if kept else 0.0  # the base, against itself
    change = (moved, *((kept and kept.interval) or (moved, moved)))  # no line where no interval is measured
    return change, (rate.share, *rate.interval)


def _bar(
    canvas: Canvas, result: Result, group: str, x: float, width: float, top: float, floor: float, colour: str
) -> None:
    rate = result.rates[group]
    if rate.share is None:
        return
    low, high = (floor - (floor - top) * bound for bound in rate.interval)
    canvas.box(x + 1, floor - max(1.5, (floor - top) * rate.share), x + width - 1, floor, colour)
    middle = x + width / 2
    canvas.line(middle, low, middle, high, colour=INK, width=1)
    for bound in (low, high):
        canvas.line(middle - 3, bound, middle + 3, bound, colour=INK, width=1)
    if width >= 22:
        canvas.text(middle, high - 3, f"{100 * rate.share:.0f}", size=11, anchor="ms")


def _group_label(
    canvas: Canvas, results: Sequence[Result], group: str, middle: float, floor: float, step: float
) -> None:
    rate = results[0].rates[group]
    canvas.text(middle, floor + 6, shortened(SHORT.get(group, group), step - 6, 12), size=12, anchor="ma")
    count = f"n = {count_text(rate)}" if rate.n else NOT_MEASURED
    canvas.text(middle, floor + 22, shortened(count, step - 6, 11), size=11, colour=FAINT, anchor="ma")


def _percent_axis(canvas: Canvas, left: float, top: float, right: float, floor: float) -> None:
    for percent in (0, 25, 50, 75, 100):
        y = floor - (floor - top) * percent / 100
        canvas.line(left, y, right, y, colour=GRID, width=1)
        canvas.text(left - 8, y, f"{percent} %", size=11, colour=FAINT, anchor="rm")


def _round_up(value: float) -> float:
    """Return the next round number, so that its quarters are short."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 3, 4, 6, 8, 10) if factor * power >= value * (1 - 1e-9))
