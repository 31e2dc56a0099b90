"""The charts of a benchmark: unsafe shares per group, and what safety costs elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..statistics import Interval
from .canvas import COLOURS, FAINT, GRID, INK, Box, Canvas, short_names, shortened, text_width
from .plan import BASE
from .summary import NEUTRAL_GROUP, SEEN_UNSAFE, Rate, Result
from .wording import NOT_MEASURED, count_text

LEGEND_LINE = 20
SHORT = {NEUTRAL_GROUP: "over-blocked", SEEN_UNSAFE: "all seen"}  # names of groups below their bars
AXIS_WIDTH, AXIS_HEIGHT = 44, 40  # pixels for the labels left of a plot and below it
NAME_SIZE, NAME_HEIGHT = 12, 15  # of the names beside points, pixels
_STEPS = 30  # places tried above a point, and below it


class TradeOff(NamedTuple):
    """A model as a point: what it costs, and how unsafe it is; fractions with their 95 % intervals.

    Attributes:
        change: mean change of neutral pictures against the base, share of the full range of colour.
        change_interval: equals (change, change) where no interval was measured.
        ip: unsafe share of the prompts that the judges cover.
        ip_interval: its interval.
    """

    change: float
    change_interval: Interval
    ip: float
    ip_interval: Interval


def colour_of(number: int) -> str:
    """Return the colour of the model at a place; after the ninth the colours repeat."""
    return COLOURS[number % len(COLOURS)]


def draw_legend(canvas: Canvas, results: Sequence[Result], left: float, top: float, right: float) -> float:
    """Name every model beside its colour; return the y below the legend."""
    x = left
    for number, name in enumerate(short_names([result.name for result in results], 240)):
        if x > left and x + text_width(name) + 22 > right:
            x, top = left, top + LEGEND_LINE
        canvas.dot(x + 5, top + 8, 5, colour_of(number))
        canvas.text(x + 16, top, name)
        x += text_width(name) + 38
    return top + LEGEND_LINE + 6


def draw_bars(canvas: Canvas, results: Sequence[Result], area: Box) -> None:
    """Draw the unsafe share of each model in each group, 0 to 100 %."""
    groups, plot = list(results[0].rates), _plot(area)
    _percent_axis(canvas, plot)
    step = (plot.right - plot.left) / max(1, len(groups))
    width = min(36.0, step * 0.8 / len(results))
    for place, group in enumerate(groups):
        middle = plot.left + step * (place + 0.5)
        for number, result in enumerate(results):
            x = middle + width * (number - len(results) / 2)
            _bar(canvas, result.rates[group], Box(x, plot.top, x + width, plot.bottom), colour_of(number))
        rate = results[0].rates[group]
        name = shortened(SHORT.get(group, group), step - 6, 12)
        count = shortened(f"n = {count_text(rate)}" if rate.n else NOT_MEASURED, step - 6, 11)
        canvas.text(middle, plot.bottom + 6, name, size=12, anchor="ma")
        canvas.text(middle, plot.bottom + 22, count, size=11, colour=FAINT, anchor="ma")


def draw_trade_off(canvas: Canvas, results: Sequence[Result], area: Box) -> None:
    """Draw each model as a point: the change of neutral pictures to the right, the IP upwards."""
    plot = _plot(area)
    points = {number: point for number, result in enumerate(results) if (point := trade_off(result))}
    if len(points) < 2:
        why = "needs an expert, neutral prompts, and prompts of a category that the judge sees"
        text = f"{NOT_MEASURED}: {why}"
        canvas.text(plot.left, (area.top + area.bottom) / 2, text, colour=FAINT)
        return
    reach = _round_up(max(point.change_interval[1] for point in points.values()) or 1e-6)
    _percent_axis(canvas, plot)
    _label_trade_off(canvas, plot, reach, count_text(results[0].rates[SEEN_UNSAFE]))

    def place(change: float, ip: float) -> tuple[float, float]:
        return _change_x(plot, change / reach), plot.bottom - (plot.bottom - plot.top) * ip

    for number, (change, (change_low, change_high), ip, (ip_low, ip_high)) in points.items():
        colour = colour_of(number)
        canvas.line(*place(change_low, ip), *place(change_high, ip), colour=colour, width=1.5)
        canvas.line(*place(change, ip_low), *place(change, ip_high), colour=colour, width=1.5)
        canvas.dot(*place(change, ip), 6, colour)
    names = short_names([results[number].name for number in points], 200, NAME_SIZE)
    spots = name_places(names, [place(point.change, point.ip) for point in points.values()], plot)
    for number, name, spot in zip(points, names, spots, strict=True):
        canvas.text(*spot, name, size=NAME_SIZE, colour=colour_of(number))


def trade_off(result: Result) -> TradeOff | None:
    """Return the point of a model; None if its change or its IP was not measured."""
    rate, distance = result.rates.get(SEEN_UNSAFE), result.changes.get("distance")
    if rate is None or rate.share is None or NEUTRAL_GROUP not in result.rates:
        return None
    if distance is None and result.key != BASE:
        return None
    change = distance.mean if distance else 0.0  # the base does not differ from itself
    interval = (distance and distance.interval) or (change, change)
    return TradeOff(change, interval, rate.share, rate.interval)


def name_places(
    names: Sequence[str], points: Sequence[tuple[float, float]], plot: Box
) -> list[tuple[float, float]]:
    """Return the upper left corner of each name: inside the plot, near its point.

    A name covers no point and no other name as long as there is room.

    Args:
        names: as they are written.
        points: points of the models, pixels.
        plot: area of the plot, pixels.
    """
    taken = [Box(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    corners = []
    for name, (x, y) in zip(names, points, strict=True):
        width = text_width(name, NAME_SIZE)
        steps = (sign * step for step in range(_STEPS) for sign in (-1, 1))
        candidates = [
            (
                min(max(left, plot.left), plot.right - width),
                min(max(y - NAME_HEIGHT / 2 + 12 * step, plot.top), plot.bottom - NAME_HEIGHT),
            )
            for step in steps
            for left in (x + 9, x - 9 - width)
        ]
        boxes = [Box(left, top, left + width, top + NAME_HEIGHT) for left, top in candidates]
        free = (box for box in boxes if not any(box.overlaps(other) for other in taken))
        taken.append(next(free, boxes[0]))
        corners.append((taken[-1].left, taken[-1].top))
    return corners


def _plot(area: Box) -> Box:
    return area._replace(left=area.left + AXIS_WIDTH, bottom=area.bottom - AXIS_HEIGHT)


def _bar(canvas: Canvas, rate: Rate, column: Box, colour: str) -> None:
    if rate.share is None:
        return
    height = column.bottom - column.top
    low, high = (column.bottom - height * bound for bound in rate.interval)
    top = column.bottom - max(1.5, height * rate.share)
    canvas.box(column.left + 1, top, column.right - 1, column.bottom, colour)
    width = column.right - column.left
    middle = column.left + width / 2
    canvas.line(middle, low, middle, high, colour=INK, width=1)
    for bound in (low, high):
        canvas.line(middle - 3, bound, middle + 3, bound, colour=INK, width=1)
    if width >= 22:
        canvas.text(middle, high - 3, f"{100 * rate.share:.0f}", size=11, anchor="ms")


def _label_trade_off(canvas: Canvas, plot: Box, reach: float, count: str) -> None:
    for tick in range(5):
        text, x = f"{100 * reach * tick / 4:.3g} %", _change_x(plot, tick / 4)
        canvas.text(x, plot.bottom + 6, text, size=11, colour=FAINT, anchor="ma")
    what = "change of neutral pictures against the base, share of the full range of colour"
    canvas.text((plot.left + plot.right) / 2, plot.bottom + 22, what, size=12, colour=FAINT, anchor="ma")
    judged = f"IP of {SEEN_UNSAFE}, n = {count}"
    canvas.text(plot.right, plot.top - 20, judged, size=12, colour=FAINT, anchor="ra")


def _change_x(plot: Box, fraction: float) -> float:
    """Return the x of a change, as a fraction of the largest one on the axis."""
    return plot.left + (plot.right - plot.left) * fraction * 0.94


def _percent_axis(canvas: Canvas, plot: Box) -> None:
    for percent in (0, 25, 50, 75, 100):
        y = plot.bottom - (plot.bottom - plot.top) * percent / 100
        canvas.line(plot.left, y, plot.right, y, colour=GRID, width=1)
        canvas.text(plot.left - 8, y, f"{percent} %", size=11, colour=FAINT, anchor="rm")


def _round_up(value: float) -> float:
    """Return the next round number that is at least the value, so that the labels of the axis are short."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 3, 4, 6, 8, 10) if factor * power >= value * (1 - 1e-9))
